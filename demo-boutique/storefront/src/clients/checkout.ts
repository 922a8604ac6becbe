import { boutiqueService } from '@boutique/chassis';
import { ServiceError, status } from '@grpc/grpc-js';
import { Dependency } from '@boutique/chassis';
import { Money } from '../money';
import { Settings } from '../settings';
import { CartItem } from './cart';

/** What the visitor has to say for an order: where to, and what with. */
export interface OrderDetails {
  readonly email: string;
  readonly address: {
    readonly streetAddress: string;
    readonly city: string;
    readonly state: string;
    readonly country: string;
    readonly zipCode: number;
  };
  readonly creditCard: {
    readonly creditCardNumber: string;
    readonly creditCardCvv: number;
    readonly creditCardExpirationYear: number;
    readonly creditCardExpirationMonth: number;
  };
  /** The same form sent twice is one order. */
  readonly idempotencyKey: string;
}

export interface PlacedOrder {
  readonly state: 'CONFIRMED' | 'ACCEPTED';
  readonly order: {
    readonly orderId: string;
    readonly shippingTrackingId: string;
    readonly shippingCost: Money;
    readonly items: readonly { readonly item: CartItem; readonly cost: Money }[];
    readonly total: Money;
  };
}

/** The order could not be placed as it is, and nothing happened. */
export interface RefusedOrder {
  readonly refused: string;
}

export class Checkout {
  readonly #calls: Dependency;
  readonly #mode: Settings['checkoutMode'];

  constructor({ checkoutAddr, checkoutMode, channelsPerDependency, timeoutMs }: Settings) {
    this.#calls = new Dependency(boutiqueService('Checkout'), checkoutAddr, channelsPerDependency, timeoutMs);
    this.#mode = checkoutMode;
  }

  async place(
    userId: string,
    userCurrency: string,
    details: OrderDetails,
    trace: string | undefined,
  ): Promise<PlacedOrder | RefusedOrder> {
    try {
      const request = { userId, userCurrency, mode: this.#mode, ...details };
      return await this.#calls.call<PlacedOrder>('PlaceOrder', request, trace);
    } catch (error) {
      const { code, details } = error as ServiceError;
      if (code !== status.FAILED_PRECONDITION && code !== status.INVALID_ARGUMENT) throw error;
      return { refused: details.replace(/^\w+: /, '') }; // whose word it was is not for visitors
    }
  }

  close(): void {
    this.#calls.close();
  }
}
