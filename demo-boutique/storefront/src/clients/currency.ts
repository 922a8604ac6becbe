import { boutiqueService, Dependency } from '@boutique/chassis';
import { ServiceError, status } from '@grpc/grpc-js';
import { Money } from '../money';
import { Settings } from '../settings';

type Trace = string | undefined;

export class Currency {
  readonly #calls: Dependency;
  readonly #batch: boolean;

  constructor({ currencyAddr, channelsPerDependency, timeoutMs, currencyBatch }: Settings) {
    this.#calls = new Dependency(boutiqueService('Currency'), currencyAddr, channelsPerDependency, timeoutMs);
    this.#batch = currencyBatch;
  }

  async list(trace: Trace): Promise<string[]> {
    return (await this.#calls.call<{ currencyCodes: string[] }>('ListCurrencies', {}, trace)).currencyCodes;
  }

  /** All amounts in another currency, or none; none as well where there is no such currency. */
  async convert(amounts: Money[], toCode: string, trace: Trace): Promise<Money[]> {
    try {
      return await this.#converted(amounts, toCode, trace);
    } catch (error) {
      if ((error as ServiceError).code !== status.INVALID_ARGUMENT) throw error;
      return [];
    }
  }

  /**
   * A call for each, on purpose: it is the mistake that every shop makes once, and it multiplies whatever
   * is wrong with the callee.
   */
  async #converted(amounts: Money[], toCode: string, trace: Trace): Promise<Money[]> {
    if (!this.#batch) {
      return Promise.all(amounts.map((from) => this.#calls.call<Money>('Convert', { from, toCode }, trace)));
    }
    const answer = await this.#calls.call<{ converted: Money[] }>('ConvertBatch', { from: amounts, toCode }, trace);
    return answer.converted;
  }

  close(): void {
    this.#calls.close();
  }
}
