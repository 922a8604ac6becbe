import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Dependency, Faults, Refusal } from '@boutique/chassis';
import { status } from '@grpc/grpc-js';
import { OrderEvent, Placed } from './facts';
import { Doer, fulfil, OrderFacts } from './fulfil';
import { Steps } from './steps';
import { Watermark } from './watermark';

const PLACED: Placed = { userId: 'u', address: null, items: [], total: null, creditCard: null };
const TRACE = '0af7651916cd43dd8448eb211c80319c';
const RUNNING = new AbortController().signal;
const away = new Refusal(status.UNAVAILABLE, 'away');

class Log implements OrderFacts {
  readonly events: OrderEvent[] = [];
  readonly traces = new Set<string | undefined>();
  /** Appends before which somebody else is quicker. */
  overtaken = 0;

  constructor() {
    this.#push({ idempotencyKey: 'placed', traceId: TRACE, orderPlaced: PLACED });
  }

  async read(): Promise<OrderEvent[]> {
    return [...this.events];
  }

  /** Appended by another worker, if nobody was quicker. */
  others(event: Partial<OrderEvent>): void {
    if (!this.#knows(event)) this.#push(event);
  }

  async append(_: string, expectedVersion: number, event: Partial<OrderEvent>, trace: string | undefined): Promise<void> {
    if (this.overtaken-- > 0) this.#push({ idempotencyKey: `other${this.overtaken}`, stockReserved: {} });
    if (this.#knows(event)) return;
    if (expectedVersion !== this.events.length) throw new Refusal(status.ABORTED, 'too late');
    this.traces.add(trace);
    this.#push(event);
  }

  get names(): string[] {
    const names = ['orderPlaced', 'paymentAuthorized', 'paymentDeclined', 'paymentRefunded', 'orderShipped', 'shipmentFailed', 'orderConfirmed', 'orderCancelled'];
    return this.events.flatMap((event) => names.filter((name) => event[name as keyof OrderEvent]));
  }

  #knows(event: Partial<OrderEvent>): boolean {
    return this.events.some(({ idempotencyKey }) => idempotencyKey === event.idempotencyKey);
  }

  #push(event: Partial<OrderEvent>): void {
    const place = this.events.length + 1;
    this.events.push({ orderId: 'o', traceId: '', idempotencyKey: '', ...event, seq: place, version: place });
  }
}

/** Answers by method; an error is thrown, once for each time that it is listed. */
function neighbour(answers: Record<string, unknown[]>): { dependency: Dependency; asked: string[] } {
  const asked: string[] = [];
  const call = async (method: string) => {
    asked.push(method);
    const list = answers[method]!;
    const answer = list.length > 1 ? list.shift() : list[0];
    if (answer instanceof Error) throw answer;
    return answer;
  };
  return { dependency: { call } as unknown as Dependency, asked };
}

test('an order is paid for, sent and confirmed, in its own trace', async () => {
  const log = new Log();
  const payment = neighbour({ Authorize: [{ transactionId: 't' }] });
  const shipping = neighbour({ Ship: [{ trackingId: 'p' }] });
  await fulfil('o', log, new Steps(payment.dependency, shipping.dependency, 3), new Faults(), RUNNING);
  assert.deepEqual(log.names, ['orderPlaced', 'paymentAuthorized', 'orderShipped', 'orderConfirmed']);
  for (const trace of log.traces) assert.match(trace!, new RegExp(`^00-${TRACE}-[0-9a-f]{16}-01$`));
});

test('a payment that is away is asked until it answers', async () => {
  const log = new Log();
  const payment = neighbour({ Authorize: [away, away, away, { transactionId: 't' }] });
  const shipping = neighbour({ Ship: [{ trackingId: 'p' }] });
  await fulfil('o', log, new Steps(payment.dependency, shipping.dependency, 1), new Faults(), RUNNING);
  assert.equal(payment.asked.length, 4);
  assert.equal(log.names.at(-1), 'orderConfirmed');
});

test('a declined card cancels the order, nothing is sent, and what a lost call may have charged is paid back', async () => {
  const log = new Log();
  const payment = neighbour({ Authorize: [new Refusal(status.FAILED_PRECONDITION, 'no money')], Refund: [away, { transactionId: '' }] });
  const shipping = neighbour({});
  await fulfil('o', log, new Steps(payment.dependency, shipping.dependency, 3), new Faults(), RUNNING);
  assert.deepEqual(log.names, ['orderPlaced', 'paymentDeclined', 'orderCancelled']);
  assert.equal(log.events.at(-1)!.orderCancelled!.reason, 'no money');
  assert.deepEqual(payment.asked, ['Authorize', 'Refund', 'Refund']);
});

test('an order under a key that the payment takes for none is cancelled: nothing can have been charged under it', async () => {
  const log = new Log();
  const noKey = new Refusal(status.INVALID_ARGUMENT, 'no key');
  const payment = neighbour({ Authorize: [noKey], Refund: [noKey] });
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 5_000).unref(); // an end for a test that fails
  await fulfil('o', log, new Steps(payment.dependency, neighbour({}).dependency, 3), new Faults(), stop.signal);
  assert.deepEqual(log.names, ['orderPlaced', 'paymentDeclined', 'orderCancelled']);
});

test('whoever between is not to let calls through for a while cancels no order', async () => {
  const log = new Log();
  const denied = new Refusal(status.PERMISSION_DENIED, 'not by this caller');
  const payment = neighbour({ Authorize: [denied, { transactionId: 't' }], Refund: [{ transactionId: '' }] });
  const shipping = neighbour({ Ship: [denied, { trackingId: 'p' }], Cancel: [{ trackingId: '' }] });
  await fulfil('o', log, new Steps(payment.dependency, shipping.dependency, 3), new Faults(), RUNNING);
  assert.deepEqual(log.names, ['orderPlaced', 'paymentAuthorized', 'orderShipped', 'orderConfirmed']);
});

test('an order that one worker gives up while another sends it is not confirmed with its parcel taken back', async () => {
  const log = new Log();
  const payment = neighbour({ Refund: [{ transactionId: 't' }] });
  const world = { cancelled: false };
  const call = async (method: string) => {
    if (method === 'Cancel') world.cancelled = true;
    // The other worker, of the version that is being replaced, has sent it and says so now.
    log.others({ idempotencyKey: 'fulfilment:shipment', orderShipped: { trackingId: 'p' } });
    return { trackingId: 'p' };
  };
  const shipping = { call } as unknown as Dependency;
  await log.append('o', 1, { idempotencyKey: 'fulfilment:payment', paymentAuthorized: { transactionId: 't', amount: null } }, undefined);
  const givesUp = new Steps(payment.dependency, shipping, 0);
  await fulfil('o', log, givesUp, new Faults(), RUNNING);
  assert.equal(log.names.at(-1) === 'orderConfirmed' && world.cancelled, false, log.names.join());
});

test('a neighbour that says nothing but ABORTED is not asked without a pause', async () => {
  const stop = new AbortController();
  const payment = neighbour({ Authorize: [new Refusal(status.ABORTED, 'as the knobs say')] });
  const work = fulfil('o', new Log(), new Steps(payment.dependency, neighbour({}).dependency, 3), new Faults(), stop.signal);
  setTimeout(() => stop.abort(), 120);
  await work;
  assert.ok(payment.asked.length <= 4, `asked ${payment.asked.length} times`);
});

test('shipping that stays away is given up: that is written down, then taken back, then paid back', async () => {
  const log = new Log();
  const payment = neighbour({ Authorize: [{ transactionId: 't' }], Refund: [away, { transactionId: 't' }] });
  const shipping = neighbour({ Ship: [away], Cancel: [away, { trackingId: '' }] });
  await fulfil('o', log, new Steps(payment.dependency, shipping.dependency, 2), new Faults(), RUNNING);
  // The refund that fails is another try of both.
  assert.deepEqual(shipping.asked, ['Ship', 'Ship', 'Cancel', 'Cancel', 'Cancel']);
  assert.deepEqual(log.names, ['orderPlaced', 'paymentAuthorized', 'shipmentFailed', 'paymentRefunded', 'orderCancelled']);
});

test('who is overtaken in the log reads again and goes on', async () => {
  const log = new Log();
  log.overtaken = 2;
  const payment = neighbour({ Authorize: [{ transactionId: 't' }] });
  const shipping = neighbour({ Ship: [{ trackingId: 'p' }] });
  await fulfil('o', log, new Steps(payment.dependency, shipping.dependency, 3), new Faults(), RUNNING);
  assert.equal(log.names.filter((name) => name === 'paymentAuthorized').length, 1);
  assert.equal(log.names.at(-1), 'orderConfirmed');
});

test('a stop ends the waiting, and leaves the order as it is', async () => {
  const log = new Log();
  const stop = new AbortController();
  const never: Doer = { do: () => Promise.reject(away) };
  const work = fulfil('o', log, never, new Faults(), stop.signal);
  setTimeout(() => stop.abort(), 30);
  await work;
  assert.deepEqual(log.names, ['orderPlaced']);
});

test('what is acknowledged has nothing open before it', () => {
  const watermark = new Watermark();
  for (const seq of [3, 7, 8, 12]) watermark.begin(seq);
  assert.equal(watermark.finish(7), undefined);
  assert.equal(watermark.finish(3), 7);
  assert.equal(watermark.finish(12), undefined);
  assert.equal(watermark.finish(8), 12);
});
