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
/** What a number of JavaScript counts one by one; a message has room for a thousand times as much. */
const UNITS_MAX = BigInt(Number.MAX_SAFE_INTEGER);

export function convert(from: Money | null, toCode: string): Money {
  if (!from) throw new Refusal(status.INVALID_ARGUMENT, 'no amount was given');
  const amount = countable(BigInt(from.units)) * NANOS + BigInt(from.nanos);
  const converted = rounded(amount * rate(toCode), rate(from.currencyCode));
  return {
    currencyCode: toCode,
    units: Number(countable(converted / NANOS)),
    nanos: Number(converted % NANOS), // the sign of a remainder is that of the whole
  };
}

/** The same units; an amount that is about right is worse than none. */
function countable(units: bigint): bigint {
  if (units < -UNITS_MAX || units > UNITS_MAX) throw new Refusal(status.INVALID_ARGUMENT, `an amount has ${UNITS_MAX} units at most`);
  return units;
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
