/** Exchange rates: units of a currency for one euro, in millionths. A snapshot, not a feed. */
const PER_EURO_MICROS: Record<string, bigint> = {
  EUR: 1_000_000n,
  USD: 1_085_400n,
  GBP: 842_300n,
  CHF: 957_600n,
  SEK: 11_284_000n,
  NOK: 11_596_000n,
  DKK: 7_459_700n,
  PLN: 4_302_500n,
  CZK: 25_214_000n,
  TRY: 35_118_000n,
  JPY: 163_850_000n,
  INR: 90_670_000n,
  CAD: 1_479_100n,
  AUD: 1_641_300n,
  BRL: 5_893_000n,
};

export const CODES: readonly string[] = Object.keys(PER_EURO_MICROS);

export function perEuroMicros(code: string): bigint | undefined {
  return Object.hasOwn(PER_EURO_MICROS, code) ? PER_EURO_MICROS[code] : undefined;
}
