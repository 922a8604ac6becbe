/** boutique.v1.Money, and the little arithmetic that a shop needs. */

export interface Money {
  readonly currencyCode: string;
  readonly units: number;
  readonly nanos: number;
}

const NANOS = 1_000_000_000n;

export function times(money: Money, quantity: number): Money {
  return ofNanos(money.currencyCode, nanosOf(money) * BigInt(quantity));
}

/** The sum of amounts that are all in this currency. */
export function sum(currencyCode: string, amounts: Money[]): Money {
  return ofNanos(currencyCode, amounts.reduce((total, money) => total + nanosOf(money), 0n));
}

/** To what can be paid: whole cents, or whole yen. Half a cent goes up. */
export function payable(money: Money): Money {
  const digits = formatter(money.currencyCode).resolvedOptions().maximumFractionDigits ?? 2;
  const step = 10n ** BigInt(9 - digits);
  return ofNanos(money.currencyCode, ((nanosOf(money) + step / 2n) / step) * step);
}

/** As people write it: "€12.50", "¥1,890". */
export function format(money: Money): string {
  return formatter(money.currencyCode).format(money.units + money.nanos / 1e9);
}

const formatters = new Map<string, Intl.NumberFormat>();

/** Kept, because making one costs more than the rest of a page. Codes come from a checked list of three letters. */
function formatter(currency: string): Intl.NumberFormat {
  let known = formatters.get(currency);
  if (!known) {
    known = new Intl.NumberFormat('en', { style: 'currency', currency });
    if (formatters.size < 200) formatters.set(currency, known);
  }
  return known;
}

function nanosOf(money: Money): bigint {
  return BigInt(money.units) * NANOS + BigInt(money.nanos);
}

function ofNanos(currencyCode: string, nanos: bigint): Money {
  return { currencyCode, units: Number(nanos / NANOS), nanos: Number(nanos % NANOS) };
}
