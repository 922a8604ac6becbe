import { boutiqueService, Dependency } from '@boutique/chassis';
import { Settings } from '../settings';

export interface CartItem {
  readonly productId: string;
  readonly quantity: number;
}

type Trace = string | undefined;

export class Cart {
  readonly #calls: Dependency;

  constructor({ cartAddr, channelsPerDependency, timeoutMs }: Settings) {
    this.#calls = new Dependency(boutiqueService('Cart'), cartAddr, channelsPerDependency, timeoutMs);
  }

  async get(userId: string, trace: Trace): Promise<CartItem[]> {
    return (await this.#calls.call<{ items: CartItem[] }>('GetCart', { userId }, trace)).items;
  }

  async add(userId: string, item: CartItem, trace: Trace): Promise<void> {
    await this.#calls.call('AddItem', { userId, item }, trace);
  }

  async empty(userId: string, trace: Trace): Promise<void> {
    await this.#calls.call('EmptyCart', { userId }, trace);
  }

  close(): void {
    this.#calls.close();
  }
}
