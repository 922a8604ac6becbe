/**
 * What becomes of an order, decided from its facts and nothing else.
 *
 *     placed ─▶ authorize ──▶ ship ──▶ shipped ──▶ CONFIRMED
 *                  │            └─▶ failed ─▶ refund ─▶ CANCELLED
 *                  └─▶ declined ────────────────────────▶ CANCELLED
 *
 * No clock, no I/O. Each step has a key of its own, under which the log, the payment and the shipping do
 * it once however often it is tried; both ends of an order have the same key, so it has one of them, and it is either
 * shipped or failed, paid or declined, whoever else works on it. What is taken back is taken back after it was written
 * down as failed, never before: until then somebody else may write that it succeeded.
 */
import { OrderEvent, Placed } from './facts';

export interface Order {
  /** Facts that it has. */
  readonly version: number;
  readonly lastSeq: number;
  readonly placed: Placed | null;
  readonly authorized: boolean;
  readonly refunded: boolean;
  readonly shipped: boolean;
  /** Why it cannot be fulfilled, if it cannot. */
  readonly failure: string | null;
  readonly ended: boolean;
}

const UNHEARD_OF: Order = {
  version: 0,
  lastSeq: 0,
  placed: null,
  authorized: false,
  refunded: false,
  shipped: false,
  failure: null,
  ended: false,
};

/** The order as its facts, in their order, make it. */
export function fold(events: readonly OrderEvent[]): Order {
  return events.reduce(apply, UNHEARD_OF);
}

function apply(order: Order, event: OrderEvent): Order {
  if (event.version <= order.version) return order; // seen already
  const next = { ...order, version: event.version, lastSeq: event.seq };
  if (event.orderPlaced) return { ...next, placed: event.orderPlaced };
  if (event.paymentAuthorized) return { ...next, authorized: true };
  if (event.paymentDeclined) return { ...next, failure: event.paymentDeclined.reason };
  if (event.paymentRefunded) return { ...next, refunded: true };
  if (event.orderShipped) return { ...next, shipped: true };
  if (event.shipmentFailed) return { ...next, failure: event.shipmentFailed.reason };
  if (event.orderConfirmed || event.orderCancelled) return { ...next, ended: true };
  return next;
}

export type Step =
  | { readonly does: 'nothing' }
  | { readonly does: 'authorize'; readonly placed: Placed }
  | { readonly does: 'ship'; readonly placed: Placed }
  /** Of what was paid for and could not be sent, or may have been sent all the same. */
  | { readonly does: 'refund' }
  /** Not refunded: a charge may have been made before it was declined, by somebody who did not live to write that down. */
  | { readonly does: 'cancel'; readonly reason: string; readonly isRefunded: boolean }
  | { readonly does: 'confirm' };

export function decide(order: Order): Step {
  if (order.ended || !order.placed) return { does: 'nothing' };
  if (order.failure !== null) {
    if (order.authorized && !order.refunded) return { does: 'refund' };
    return { does: 'cancel', reason: order.failure, isRefunded: order.refunded };
  }
  if (!order.authorized) return { does: 'authorize', placed: order.placed };
  if (!order.shipped) return { does: 'ship', placed: order.placed };
  return { does: 'confirm' };
}

const KEYS: Record<Exclude<Step['does'], 'nothing'>, string> = {
  authorize: 'fulfilment:payment',
  ship: 'fulfilment:shipment',
  refund: 'fulfilment:refund',
  cancel: 'fulfilment:end',
  confirm: 'fulfilment:end',
};

/** Under which the log has the outcome of a step, whichever it is. */
export function keyOf(step: Exclude<Step, { does: 'nothing' }>): string {
  return KEYS[step.does];
}

/** Under which the payment has the charge for an order. */
export function chargeKey(orderId: string): string {
  return `${orderId}:payment`;
}
