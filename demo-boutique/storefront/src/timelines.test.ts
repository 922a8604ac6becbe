import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { OrderEvent, orderOf, PLACED_STEP, Step, stepOf, stepsOf } from './facts';
import { sinkOf } from './timeline';
import { Log, Sink, Timelines } from './timelines';

const LIMITS = { listenersMax: 3, pingMs: 10, pauseMs: 1, pauseMsMax: 4 };
const PLACED = { orderPlaced: { userId: 'ann', items: [], total: null } };
const PAID = { paymentAuthorized: { transactionId: 't' } };
const SHIPPED = { orderShipped: { trackingId: 'WB-1' } };
const CONFIRMED = { orderConfirmed: {} };

/** A log in memory, whose reads wait to be let through where a test says so. */
class FakeLog implements Log {
  readonly events: OrderEvent[] = [];
  readonly subscribed: number[] = [];
  readonly streams = new Set<EventEmitter>();
  readonly held: (() => void)[] = [];
  holds = false;

  append(orderId: string, fact: object): void {
    const event = { seq: this.events.length + 1, orderId, ...fact };
    this.events.push(event);
    for (const stream of this.streams) stream.emit('data', event);
  }

  async read(orderId: string): Promise<OrderEvent[]> {
    const found = this.events.filter((event) => event.orderId === orderId);
    if (this.holds) await new Promise<void>((resolve) => this.held.push(resolve));
    return found;
  }

  subscribe(fromSeq: number): ReturnType<Log['subscribe']> {
    this.subscribed.push(fromSeq);
    const stream = Object.assign(new EventEmitter(), { cancel: () => void this.streams.delete(stream) });
    this.streams.add(stream);
    setImmediate(() => {
      for (const event of this.events) if (event.seq >= fromSeq && this.streams.has(stream)) stream.emit('data', event);
    });
    return stream as unknown as ReturnType<Log['subscribe']>;
  }

  break(error: Error = new Error('gone')): void {
    const broken = [...this.streams];
    this.streams.clear();
    for (const stream of broken) stream.emit('error', error) && stream.emit('end');
  }
}

class Page implements Sink {
  readonly names: string[] = [];
  readonly gone = new AbortController();
  pings = 0;
  reads = true;
  ended = false;
  dropped = false;

  tell(step: Step): boolean {
    this.names.push(step.name);
    return this.reads;
  }
  ping(): boolean {
    this.pings += 1;
    return this.reads;
  }
  end(): void {
    this.ended = true;
  }
  drop(): void {
    this.dropped = true;
  }
}

function open(timelines: Timelines, page: Page, orderId: string, afterSeq = 0, user = 'ann'): Promise<string> {
  return timelines.open(orderId, user, afterSeq, undefined, page.gone.signal, () => page);
}

/** Turns of the event loop, each of a millisecond: a machine that stands still keeps none of them from anybody. */
async function pass(turns: number): Promise<void> {
  for (let each = 0; each < turns; each++) {
    await sleep(1);
    await turn();
  }
}

test('what happened comes first, then what happens, each once, and other orders are silent', async () => {
  const [log, page] = [new FakeLog(), new Page()];
  const timelines = new Timelines(log, LIMITS);
  log.append('a', PLACED);
  log.append('b', PLACED);
  assert.equal(await open(timelines, page, 'a'), 'told');
  log.append('b', PAID);
  log.append('a', PAID);
  await pass(5); // the subscription repeats what is there
  log.append('a', SHIPPED);
  assert.deepEqual(page.names, ['Placed', 'Paid', 'Shipped']);
  log.append('a', CONFIRMED);
  assert.deepEqual([page.names.at(-1), page.ended], ['Confirmed', true]);
  assert.deepEqual([timelines.listeners, timelines.isFollowing, log.streams.size], [0, false, 0]);
});

test('a log that is another one now is not followed from where the other one ended, and browsers ask again', async () => {
  const [log, page, again] = [new FakeLog(), new Page(), new Page()];
  const timelines = new Timelines(log, LIMITS);
  for (const other of ['b', 'c', 'd', 'a']) log.append(other, PLACED);
  await open(timelines, page, 'a');
  log.events.length = 0;
  log.break(Object.assign(new Error('this log ends at seq 0'), { code: status.OUT_OF_RANGE }));
  assert.deepEqual([page.dropped, timelines.listeners, timelines.isFollowing], [true, 0, false]);
  log.append('a', PLACED);
  assert.equal(await open(timelines, again, 'a'), 'told');
  assert.equal(log.subscribed.at(-1), 2);
  again.gone.abort();
});

test('a fact that comes while the past is read is told after it', async () => {
  const [log, first, page] = [new FakeLog(), new Page(), new Page()];
  const timelines = new Timelines(log, LIMITS);
  log.append('other', PLACED);
  await open(timelines, first, 'other');
  log.append('a', PLACED);
  log.holds = true;
  const opening = open(timelines, page, 'a');
  log.append('a', PAID);
  assert.deepEqual(page.names, []);
  log.held.shift()!();
  await opening;
  assert.deepEqual(page.names, ['Placed', 'Paid']);
  assert.equal(log.subscribed.length, 1);
  for (const each of [first, page]) each.gone.abort();
});

test('who was read before the subscription began misses nothing: it goes back', async () => {
  const [log, old, young] = [new FakeLog(), new Page(), new Page()];
  const timelines = new Timelines(log, LIMITS);
  log.append('old', PLACED);
  log.holds = true;
  const opening = open(timelines, old, 'old'); // has read what is there, and hears of it late
  log.append('old', PAID);
  log.append('young', PLACED);
  log.holds = false;
  await open(timelines, young, 'young');
  log.held.shift()!();
  await opening;
  await pass(5);
  assert.deepEqual([old.names, young.names], [['Placed', 'Paid'], ['Placed']]);
  assert.deepEqual(log.subscribed, [4, 2]);
  assert.equal(log.streams.size, 1);
  for (const each of [old, young]) each.gone.abort();
});

test('a break is mended from the next fact on, and nobody hears anything twice', async () => {
  const [log, page] = [new FakeLog(), new Page()];
  const timelines = new Timelines(log, LIMITS);
  log.append('a', PLACED);
  await open(timelines, page, 'a');
  log.append('a', PAID);
  log.break();
  log.append('a', SHIPPED);
  await pass(30);
  assert.deepEqual(page.names, ['Placed', 'Paid', 'Shipped']);
  assert.deepEqual(log.subscribed, [2, 3]);
  page.gone.abort();
});

test('a break while nobody is left is not mended', async () => {
  const [log, page] = [new FakeLog(), new Page()];
  const timelines = new Timelines(log, LIMITS);
  log.append('a', PLACED);
  await open(timelines, page, 'a');
  log.break();
  page.gone.abort();
  await pass(20);
  assert.deepEqual([log.subscribed.length, log.streams.size, timelines.isFollowing], [1, 0, false]);
});

test('whoever comes back is told what it missed, and of an order that is over nothing', async () => {
  const log = new FakeLog();
  const timelines = new Timelines(log, LIMITS);
  for (const fact of [PLACED, PAID, SHIPPED]) log.append('a', fact);
  const page = new Page();
  await open(timelines, page, 'a', 2);
  assert.deepEqual(page.names, ['Shipped']);
  log.append('a', CONFIRMED);
  assert.equal(await open(timelines, new Page(), 'a', 4), 'over');
  assert.equal(timelines.listeners, 0);
});

test('an order is followed from what is known of the log, not from its own youth', async () => {
  const [log, stuck] = [new FakeLog(), new Page()];
  const timelines = new Timelines(log, LIMITS);
  log.append('stuck', PLACED);
  for (const fact of [PLACED, PAID, SHIPPED, CONFIRMED]) log.append('a', fact);
  await open(timelines, new Page(), 'a');
  await open(timelines, stuck, 'stuck');
  assert.deepEqual(log.subscribed, [6]);
  stuck.gone.abort();
});

test('a reader that does not keep up is dropped, and the others hear on', async () => {
  const [log, slow, quick] = [new FakeLog(), new Page(), new Page()];
  const timelines = new Timelines(log, LIMITS);
  log.append('a', PLACED);
  for (const each of [slow, quick]) await open(timelines, each, 'a');
  slow.reads = false;
  log.append('a', PAID);
  log.append('a', SHIPPED);
  assert.deepEqual([slow.dropped, slow.names, quick.names], [true, ['Placed', 'Paid'], ['Placed', 'Paid', 'Shipped']]);
  assert.equal(timelines.listeners, 1);
  quick.reads = false;
  await pass(30); // the next sign of life finds it out
  assert.deepEqual([quick.dropped, timelines.listeners, log.streams.size], [true, 0, 0]);
});

test('listeners are as many as there may be, and get signs of life', async (t) => {
  const cleared = t.mock.method(globalThis, 'clearInterval');
  const log = new FakeLog();
  const timelines = new Timelines(log, LIMITS);
  log.append('a', PLACED);
  const pages = [new Page(), new Page(), new Page()];
  for (const page of pages) assert.equal(await open(timelines, page, 'a'), 'told');
  assert.equal(await open(timelines, new Page(), 'a'), 'full');
  await pass(40);
  assert.ok(pages.every((page) => page.pings > 0));
  assert.equal(log.subscribed.length, 1);
  for (const page of pages) page.gone.abort();
  const before = pages[0]!.pings;
  await pass(30);
  assert.deepEqual([timelines.listeners, timelines.isFollowing, log.streams.size, pages[0]!.pings], [0, false, 0, before]);
  assert.equal(cleared.mock.callCount(), 1);
});

test('whoever leaves while the past is read, or asks for another’s order, takes no place', async () => {
  const log = new FakeLog();
  const timelines = new Timelines(log, LIMITS);
  log.append('a', PLACED);
  assert.equal(await open(timelines, new Page(), 'a', 0, 'eve'), 'unknown');
  assert.equal(await open(timelines, new Page(), 'none'), 'unknown');
  log.holds = true;
  const page = new Page();
  const opening = open(timelines, page, 'a');
  page.gone.abort();
  log.held.shift()!();
  assert.equal(await opening, 'unknown');
  assert.deepEqual([timelines.listeners, log.subscribed, page.names], [0, [], []]);
});

test('a browser with 4 KiB unread is too slow, and one that is being closed gets nothing more', () => {
  const written: string[] = [];
  const response = { writableLength: 0, writableEnded: false, destroyed: false, write: (text: string) => written.push(text), end: () => undefined, destroy: () => undefined };
  const sink = sinkOf(response as never);
  assert.equal(sink.ping(), true);
  response.writableLength = 4097;
  assert.equal(sink.tell(PLACED_STEP), false);
  response.writableEnded = true;
  assert.equal(sink.ping(), true);
  assert.equal(written.length, 2);
});

test('the facts and the view of an order show the same chips', () => {
  const fact = (seq: number, what: object): OrderEvent => ({ seq, orderId: 'a', ...what });
  const declined = { paymentDeclined: { reason: 'no funds' } };
  const unshippable = { shipmentFailed: { reason: 'no such address' } };
  const stories = [
    [PLACED],
    [PLACED, PAID],
    [PLACED, PAID, SHIPPED, CONFIRMED],
    [PLACED, declined],
    [PLACED, declined, { orderCancelled: { reason: 'no funds' } }],
    [PLACED, PAID, unshippable],
    [PLACED, PAID, unshippable, { paymentRefunded: {} }, { orderCancelled: { reason: 'no such address' } }],
  ];
  for (const story of stories) {
    const facts = story.map((what, index) => fact(index + 1, what));
    const chips = (steps: (Step | undefined)[]) => steps.map((step) => ({ ...step, seq: undefined }));
    assert.deepEqual(chips(stepsOf(orderOf(facts)!)), chips(facts.map(stepOf)));
  }
});

test('an order that is cancelled without a reason keeps the one that was told before, and none is there before it was placed', () => {
  const fact = (seq: number, what: object): OrderEvent => ({ seq, orderId: 'a', ...what });
  const declined = orderOf([fact(1, PLACED), fact(2, { paymentDeclined: { reason: 'no funds' } }), fact(3, { orderCancelled: { reason: '' } })])!;
  assert.deepEqual([declined.status, declined.reason], ['CANCELLED', 'no funds']);
  assert.equal(orderOf([fact(2, PAID)]), undefined);
});
