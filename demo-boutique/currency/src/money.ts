/** An amount of money in another currency, exact to a billionth of a unit. */
import { Refusal } from '@boutique/chassis';
import { status } from '@grpc/grpc-js';
import { perEuroMicros } from './rates';

/** boutique.v1.Money. */
export interface Money {
  readonly currencyCode: string;
  readonly units: number;
  readonly nanos: number;
}

const NANOS = 1_000_000_000n;

export function convert(from: Money | null, toCode: string): Money {
  if (!from) throw new Refusal(status.INVALID_ARGUMENT, 'no amount was given');
  const amount = BigInt(from.units) * NANOS + BigInt(from.nanos);
  const converted = rounded(amount * rate(toCode), rate(from.currencyCode));
  return {
    currencyCode: toCode,
    units: Number(converted / NANOS),
    nanos: Number(converted % NANOS), // the sign of a remainder is that of the whole
  };
}

function rate(code: string): bigint {
  const micros = perEuroMicros(code);
  if (micros === undefined) throw new Refusal(status.INVALID_ARGUMENT, `"${code}" is no currency of this shop`);
  return micros;
}

/** Half a billionth goes away from zero; the divisor is positive. */
function rounded(dividend: bigint, divisor: bigint): bigint {
  const half = divisor / 2n;
  return (dividend + (dividend < 0n ? -half : half)) / divisor;
}
