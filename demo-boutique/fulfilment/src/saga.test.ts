/**
 * The decisions in a world of faults: two workers that crash at any point, calls whose answers are lost, appends
 * that conflict. Each seed is a story; SEED=n in the environment tells one of them again.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fact, OrderEvent, Placed } from './facts';
import { chargeKey, decide, fold, keyOf, Order, Step } from './saga';

const STORIES = 3_000;
const TICKS_MAX = 2_000;

/** Mulberry32: small, and the same everywhere. */
function random(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const PLACED: Placed = { userId: 'u', address: null, items: [], total: null, creditCard: null };

/** The log, the payment and the shipping, each idempotent as they promise. */
class World {
  readonly log: OrderEvent[] = [];
  readonly charges = new Map<string, number>();
  readonly refunds = new Map<string, number>();
  parcels = 0;
  isTakenBack = false;

  constructor(
    readonly declines: boolean,
    readonly refusesToShip: boolean,
  ) {
    this.append(0, { idempotencyKey: 'placed', orderPlaced: PLACED });
  }

  append(expectedVersion: number, event: Partial<OrderEvent> & { idempotencyKey: string }): boolean {
    if (this.log.some((known) => known.idempotencyKey === event.idempotencyKey)) return true;
    if (this.log.length !== expectedVersion) return false;
    const place = this.log.length + 1;
    this.log.push({ orderId: 'o', traceId: '', ...event, seq: place, version: place });
    return true;
  }

  do(step: Exclude<Step, { does: 'nothing' }>, chance: () => number): Fact {
    const key = chargeKey('o');
    switch (step.does) {
      case 'authorize':
        // Also by somebody between, of an order that was charged before by a call whose answer was lost.
        if (this.declines || this.refunds.has(key) || chance() < 0.05) return { paymentDeclined: { reason: 'no money' } };
        this.charges.set(key, 1);
        return { paymentAuthorized: { transactionId: 't', amount: null } };
      case 'ship':
        // Given up, of an order that was shipped before in the same way, or is by another worker meanwhile.
        if (chance() < 0.1) return { shipmentFailed: { reason: 'not reached' } };
        if (this.refusesToShip || this.isTakenBack) return { shipmentFailed: { reason: 'too far' } };
        this.parcels = 1;
        return { orderShipped: { trackingId: 'p' } };
      case 'refund':
        this.isTakenBack = true;
        this.parcels = 0;
        this.refunds.set(key, 1);
        return { paymentRefunded: { transactionId: 't' } };
      case 'cancel':
        if (!step.isRefunded) this.refunds.set(key, 1);
        return { orderCancelled: { reason: step.reason } };
      case 'confirm':
        return { orderConfirmed: {} };
    }
  }
}

/** One that works on the order, a small step at a time; a crash takes away all that it knows. */
class Worker {
  #order: Order | undefined;
  #done: { step: Exclude<Step, { does: 'nothing' }>; fact: Fact } | undefined;
  ended = false;

  constructor(
    private readonly world: World,
    private readonly chance: () => number,
  ) {}

  tick(): void {
    if (this.chance() < 0.15) return this.#crash();
    if (!this.#order) {
      this.#order = fold(this.world.log);
      return;
    }
    if (!this.#done) {
      const step = decide(this.#order);
      this.ended = step.does === 'nothing';
      if (step.does === 'nothing' || this.chance() < 0.2) return; // the call does not get there
      const fact = this.world.do(step, this.chance);
      if (this.chance() < 0.2) return; // the answer does not come back
      this.#done = { step, fact };
      return;
    }
    if (this.chance() < 0.2) return;
    this.world.append(this.#order.version, { idempotencyKey: keyOf(this.#done.step), ...this.#done.fact });
    this.#crash(); // whatever became of it, the log knows
  }

  #crash(): void {
    this.#order = undefined;
    this.#done = undefined;
  }
}

function story(seed: number): World {
  const chance = random(seed);
  const world = new World(chance() < 0.3, chance() < 0.3);
  const workers = [new Worker(world, chance), new Worker(world, chance)];
  for (let tick = 0; !workers.every((worker) => worker.ended); tick++) {
    assert.ok(tick < TICKS_MAX, `seed ${seed}: the order does not end`);
    workers[chance() < 0.5 ? 0 : 1]!.tick();
  }
  return world;
}

test('whatever fails, an order ends once: confirmed, paid and sent, or cancelled and not paid for', () => {
  const only = process.env['SEED'];
  const seeds = only ? [Number(only)] : Array.from({ length: STORIES }, (_, seed) => seed);
  const ends = { confirmed: 0, declined: 0, refunded: 0 };
  for (const seed of seeds) {
    const { log, charges, refunds, parcels, declines, refusesToShip } = story(seed);
    const has = (name: keyof OrderEvent) => log.filter((event) => event[name]).length;
    const said = `seed ${seed}`;
    assert.equal(has('orderConfirmed') + has('orderCancelled'), 1, said);
    assert.equal(log.at(-1)!.orderConfirmed || log.at(-1)!.orderCancelled ? 1 : 0, 1, said);
    const key = chargeKey('o');
    if (has('orderConfirmed')) {
      assert.ok(!declines && !refusesToShip, said);
      assert.deepEqual([charges.get(key), refunds.size, parcels], [1, 0, 1], said);
      ends.confirmed++;
    } else {
      assert.ok(!charges.has(key) || refunds.has(key), `${said}: charged and kept`);
      assert.equal(parcels, 0, said);
      ends[has('paymentDeclined') ? 'declined' : 'refunded']++;
    }
  }
  if (!only) for (const [end, count] of Object.entries(ends)) assert.ok(count > STORIES / 20, `${end}: ${count} times`);
});

test('an order whose first fact is not known is left alone', () => {
  assert.deepEqual(decide(fold([])), { does: 'nothing' });
});

test('a fact that comes twice counts once', () => {
  const world = new World(false, false);
  const [placed] = world.log;
  assert.deepEqual(fold([placed!, placed!]), fold([placed!]));
});
