/** Facts of the log as the proto loader gives them: the one that an event has is an object, the others are null. */

export interface Money {
  readonly currencyCode: string;
  readonly units: number;
  readonly nanos: number;
}

export interface Placed {
  readonly userId: string;
  readonly address: object | null;
  readonly items: readonly { readonly productId: string; readonly quantity: number }[];
  readonly total: Money | null;
  readonly creditCard: object | null;
}

export interface Facts {
  readonly orderPlaced: Placed;
  readonly stockReserved: object;
  readonly paymentAuthorized: { readonly transactionId: string; readonly amount: Money | null };
  readonly paymentDeclined: { readonly reason: string };
  readonly paymentRefunded: { readonly transactionId: string };
  readonly orderShipped: { readonly trackingId: string };
  readonly shipmentFailed: { readonly reason: string };
  readonly orderConfirmed: object;
  readonly orderCancelled: { readonly reason: string };
}

/** Exactly one fact by its name. */
export type Fact = { [Name in keyof Facts]: { readonly [Key in Name]: Facts[Name] } }[keyof Facts];

export type OrderEvent = {
  readonly seq: number;
  readonly orderId: string;
  readonly version: number;
  readonly traceId: string;
  readonly idempotencyKey: string;
} & { readonly [Name in keyof Facts]?: Facts[Name] | null };
