import { boutiqueService, Dependency } from '@boutique/chassis';
import { ClientReadableStream } from '@grpc/grpc-js';
import { Money } from '../money';
import { Settings } from '../settings';

export interface Product {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly picture: string;
  readonly priceUsd: Money;
  readonly categories: readonly string[];
}

export interface PriceTick {
  readonly productId: string;
  readonly priceUsd: Money;
  readonly atUnixMs: number;
}

type Trace = string | undefined;

export class Catalog {
  readonly #calls: Dependency;

  constructor({ catalogAddr, channelsPerDependency, timeoutMs }: Settings) {
    this.#calls = new Dependency(boutiqueService('Catalog'), catalogAddr, channelsPerDependency, timeoutMs);
  }

  async list(trace: Trace): Promise<Product[]> {
    return (await this.#calls.call<{ products: Product[] }>('ListProducts', {}, trace)).products;
  }

  get(id: string, trace: Trace): Promise<Product> {
    return this.#calls.call('GetProduct', { id }, trace);
  }

  async search(query: string, trace: Trace): Promise<Product[]> {
    return (await this.#calls.call<{ results: Product[] }>('SearchProducts', { query }, trace)).results;
  }

  watchPrices(trace: Trace): ClientReadableStream<PriceTick> {
    return this.#calls.watch('WatchPrices', {}, trace);
  }

  close(): void {
    this.#calls.close();
  }
}
