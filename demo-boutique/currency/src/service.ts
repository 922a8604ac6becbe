/** boutique.v1.Currency. */
import { alias, boutiqueService, Faults, unary } from '@boutique/chassis';
import { Server } from '@grpc/grpc-js';
import { convert, Money } from './money';
import { CODES } from './rates';

interface Convert {
  from: Money | null;
  toCode: string;
}
interface ConvertBatch {
  from: Money[];
  toCode: string;
}

export const NAME = 'boutique.v1.Currency';

export function addCurrency(server: Server, faults: Faults): void {
  const listCurrencies = unary(faults, () => ({ currencyCodes: CODES }));
  const convertOne = unary<Convert, Money>(faults, ({ from, toCode }) => convert(from, toCode));
  const convertBatch = unary(faults, ({ from, toCode }: ConvertBatch) => ({
    converted: from.map((money) => convert(money, toCode)),
  }));

  const definition = boutiqueService('Currency');
  server.addService(definition, { listCurrencies, convert: convertOne, convertBatch });

  // Online Boutique's names for the same calls: its services can call this one.
  const { ListCurrencies, Convert } = alias(definition, 'hipstershop.CurrencyService');
  const GetSupportedCurrencies = { ...ListCurrencies!, path: '/hipstershop.CurrencyService/GetSupportedCurrencies' };
  server.addService(
    { GetSupportedCurrencies, Convert: Convert! },
    { GetSupportedCurrencies: listCurrencies, Convert: convertOne },
  );
}
