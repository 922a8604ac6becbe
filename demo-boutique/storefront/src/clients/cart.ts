import { boutiqueService, Dependency } from '@boutique/chassis';
import { ServiceError, status } from '@grpc/grpc-js';
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

  /** Why it was not added, if the cart would not have it. */
  async add(userId: string, item: CartItem, trace: Trace): Promise<string | undefined> {
    try {
      await this.#calls.call('AddItem', { userId, item }, trace);
      return undefined;
    } catch (error) {
      const { code, details } = error as ServiceError;
      if (code !== status.FAILED_PRECONDITION && code !== status.INVALID_ARGUMENT) throw error;
      return details;
    }
  }

  async empty(userId: string, trace: Trace): Promise<void> {
    await this.#calls.call('EmptyCart', { userId }, trace);
  }

  close(): void {
    this.#calls.close();
  }
}
