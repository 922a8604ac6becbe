/** What happened to an order, as the log has it and as a page shows it. Pure. */
import { Money } from './money';

export type Standing = 'PLACED' | 'PAID' | 'SHIPPED' | 'CONFIRMED' | 'CANCELLED';

/** boutique.events.v1.Order, what a page shows of it. */
export interface Order {
  readonly orderId: string;
  readonly status: Standing | 'ORDER_STATUS_UNSPECIFIED';
  readonly userId: string;
  readonly total: Money | null;
  readonly items: readonly OrderedItem[];
  readonly transactionId: string;
  readonly trackingId: string;
  readonly refunded: boolean;
  readonly reason: string;
}

export interface OrderedItem {
  readonly productId: string;
  readonly quantity: number;
  readonly cost: Money | null;
}

interface Facts {
  readonly orderPlaced: { readonly userId: string; readonly items: readonly OrderedItem[]; readonly total: Money | null };
  readonly paymentAuthorized: { readonly transactionId: string };
  readonly paymentDeclined: { readonly reason: string };
  readonly paymentRefunded: object;
  readonly orderShipped: { readonly trackingId: string };
  readonly shipmentFailed: { readonly reason: string };
  readonly orderConfirmed: object;
  readonly orderCancelled: { readonly reason: string };
}

/** As the proto loader gives it: the fact that an event has is an object, the others are null. */
export type OrderEvent = { readonly seq: number; readonly orderId: string } & {
  readonly [Name in keyof Facts]?: Facts[Name] | null;
};

/** One chip of the timeline. */
export interface Step {
  /** Undefined where an order is known as it stands, and not by its facts. */
  readonly seq: number | undefined;
  readonly name: string;
  readonly note: string;
  /** Nothing comes after it. */
  readonly last: boolean;
}

/** Undefined for a fact that says nothing to a customer. */
export function stepOf(event: OrderEvent): Step | undefined {
  const step = (name: string, note = '', last = false): Step => ({ seq: event.seq, name, note, last });
  if (event.orderPlaced) return step('Placed');
  if (event.paymentAuthorized) return step('Paid');
  if (event.paymentDeclined) return step('Declined', event.paymentDeclined.reason);
  if (event.paymentRefunded) return step('Refunded');
  if (event.orderShipped) return step('Shipped', event.orderShipped.trackingId);
  if (event.shipmentFailed) return step('Not shipped', event.shipmentFailed.reason);
  if (event.orderConfirmed) return step('Confirmed', '', true);
  if (event.orderCancelled) return step('Cancelled', event.orderCancelled.reason, true);
  return undefined;
}

/** The chips of an order of which only the end is known: what must have happened on the way. */
export function stepsOf(order: Order): Step[] {
  const step = (name: string, note = '', last = false): Step => ({ seq: undefined, name, note, last });
  const steps = [step('Placed')];
  if (order.transactionId) steps.push(step('Paid'));
  if (order.trackingId) steps.push(step('Shipped', order.trackingId));
  if (order.refunded) steps.push(step('Refunded'));
  if (order.status === 'CONFIRMED') steps.push(step('Confirmed', '', true));
  if (order.status === 'CANCELLED') steps.push(step('Cancelled', order.reason, true));
  return steps;
}

/** Whose order it is; undefined while the log does not say that it was placed. */
export function ownerOf(events: readonly OrderEvent[]): string | undefined {
  return events.find((event) => event.orderPlaced)?.orderPlaced?.userId;
}

/** The order as its facts leave it, as orderview has it when it has caught up. Undefined unless it was placed. */
export function orderOf(events: readonly OrderEvent[]): Order | undefined {
  const placed = events.find((event) => event.orderPlaced);
  if (!placed?.orderPlaced) return undefined;
  const { userId, items, total } = placed.orderPlaced;
  const order = { orderId: placed.orderId, userId, items, total, transactionId: '', trackingId: '', refunded: false, reason: '' };
  let status: Standing = 'PLACED';
  for (const event of events) {
    if (event.paymentAuthorized) [status, order.transactionId] = ['PAID', event.paymentAuthorized.transactionId];
    if (event.paymentDeclined) order.reason = event.paymentDeclined.reason;
    if (event.paymentRefunded) order.refunded = true;
    if (event.orderShipped) [status, order.trackingId] = ['SHIPPED', event.orderShipped.trackingId];
    if (event.shipmentFailed) order.reason = event.shipmentFailed.reason;
    if (event.orderConfirmed) status = 'CONFIRMED';
    if (event.orderCancelled) [status, order.reason] = ['CANCELLED', event.orderCancelled.reason || order.reason];
  }
  return { ...order, status };
}
