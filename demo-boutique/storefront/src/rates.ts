/** Prices as they were when the currency service last said what they come to, for when it does not. */
import { Product } from './clients/catalog';
import { Money } from './money';

/** Older than this is no price to show. */
const AGE_MS_MAX = 15 * 60_000;
/** Of amounts in a currency: some hundred currencies of a large shop. */
const ENTRIES_MAX = 5_000;

interface Entry {
  readonly price: Money;
  readonly at: number;
}

export interface PricesThen {
  readonly prices: Money[];
  /** The oldest of them. */
  readonly asOf: Date;
}

export class Rates {
  /** By currency and amount in the base currency; the latest are at the end. */
  readonly #entries = new Map<string, Entry>();

  remember(products: readonly Product[], prices: readonly Money[], now = Date.now()): void {
    products.forEach((product, i) => {
      const price = prices[i]!;
      const key = keyOf(product, price.currencyCode);
      this.#entries.delete(key);
      this.#entries.set(key, { price, at: now });
    });
    for (const key of this.#entries.keys()) {
      if (this.#entries.size <= ENTRIES_MAX) break;
      this.#entries.delete(key);
    }
  }

  /** All of these in that currency, or nothing: a product whose own price has changed since then has none. */
  recall(products: readonly Product[], currency: string, now = Date.now()): PricesThen | undefined {
    const entries = products.map((product) => this.#entries.get(keyOf(product, currency)));
    if (entries.some((entry) => entry === undefined || now - entry.at > AGE_MS_MAX)) return undefined;
    const found = entries as Entry[];
    return { prices: found.map(({ price }) => price), asOf: new Date(Math.min(...found.map(({ at }) => at))) };
  }
}

function keyOf({ priceUsd: { units, nanos } }: Product, currency: string): string {
  return `${currency} ${units} ${nanos}`;
}
