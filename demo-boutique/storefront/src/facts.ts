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

/** What a page says above an order that stands so. */
export const TITLES: Record<Order['status'], string> = {
  ORDER_STATUS_UNSPECIFIED: 'Order accepted, payment pending',
  PLACED: 'Order accepted, payment pending',
  PAID: 'Paid, and being packed',
  SHIPPED: 'On its way',
  CONFIRMED: 'Thank you!',
  CANCELLED: 'Order cancelled',
};

/** One chip of the timeline. */
export interface Step {
  /** Undefined where an order is known as it stands, and not by its facts. */
  readonly seq: number | undefined;
  readonly name: string;
  readonly note: string;
  /** How the order stands after it; undefined where that is as before. */
  readonly standing: Standing | undefined;
  /** Nothing comes after it. */
  readonly last: boolean;
}

/** Undefined for a fact that says nothing to a customer. */
export function stepOf(event: OrderEvent): Step | undefined {
  const { seq } = event;
  if (event.orderPlaced) return step(seq, 'Placed', '', 'PLACED');
  if (event.paymentAuthorized) return step(seq, 'Paid', '', 'PAID');
  if (event.paymentDeclined) return step(seq, 'Declined', event.paymentDeclined.reason);
  if (event.paymentRefunded) return step(seq, 'Refunded');
  if (event.orderShipped) return step(seq, 'Shipped', event.orderShipped.trackingId, 'SHIPPED');
  if (event.shipmentFailed) return step(seq, 'Not shipped', event.shipmentFailed.reason);
  if (event.orderConfirmed) return step(seq, 'Confirmed', '', 'CONFIRMED');
  if (event.orderCancelled) return step(seq, 'Cancelled', event.orderCancelled.reason, 'CANCELLED');
  return undefined;
}

/** The chips of an order of which only the end is known: what must have happened on the way. */
export function stepsOf(order: Order): Step[] {
  const steps = [PLACED_STEP];
  if (order.transactionId) steps.push(step(undefined, 'Paid', '', 'PAID'));
  if (order.trackingId) steps.push(step(undefined, 'Shipped', order.trackingId, 'SHIPPED'));
  // One word for both failures: what had been reached before says which it was.
  else if (order.reason) steps.push(step(undefined, order.transactionId ? 'Not shipped' : 'Declined', order.reason));
  if (order.refunded) steps.push(step(undefined, 'Refunded'));
  if (order.status === 'CONFIRMED') steps.push(step(undefined, 'Confirmed', '', 'CONFIRMED'));
  if (order.status === 'CANCELLED') steps.push(step(undefined, 'Cancelled', order.reason, 'CANCELLED'));
  return steps;
}

/** Of an order of which no more is known. */
export const PLACED_STEP = step(undefined, 'Placed', '', 'PLACED');

function step(seq: number | undefined, name: string, note = '', standing?: Standing): Step {
  return { seq, name, note, standing, last: standing === 'CONFIRMED' || standing === 'CANCELLED' };
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
