import assert from 'node:assert/strict';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { Faults } from './faults';
import { knobsFrom, NO_FAULTS } from './knobs';
import { Slots, WORK_MAX } from './slots';

const present = () => new AbortController().signal;
const soon = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test('without knobs a call passes at once', async () => {
  await new Faults().before(present());
});

test('the given share of calls fails with the given code', async () => {
  let next = 0;
  const faults = new Faults({ ...NO_FAULTS, errorPct: 30, code: status.ABORTED }, () => next++);
  const calls = await Promise.allSettled(Array.from({ length: 100 }, () => faults.before(present())));
  const failed = calls.flatMap((call) => (call.status === 'rejected' ? [call.reason] : []));
  assert.equal(failed.length, 30);
  assert.ok(failed.every((refusal) => refusal.code === status.ABORTED));
});

test('a code of zero stands for UNAVAILABLE', async () => {
  await assert.rejects(new Faults({ ...NO_FAULTS, errorPct: 100 }).before(present()), { code: status.UNAVAILABLE });
});

test('latency and freeze end early when the caller gives up', async () => {
  for (const knobs of [{ ...NO_FAULTS, latencyMs: 60_000 }, { ...NO_FAULTS, freeze: true }]) {
    const caller = new AbortController();
    const call = new Faults(knobs).before(caller.signal);
    caller.abort();
    await assert.rejects(call, { code: status.CANCELLED });
  }
});

test('a frozen call goes on when it thaws', async () => {
  const faults = new Faults({ ...NO_FAULTS, freeze: true });
  let done = false;
  const call = faults.before(present()).then(() => (done = true));
  await soon(30);
  assert.equal(done, false);
  faults.set(NO_FAULTS);
  await call;
});

test('capacity is slots over service time', async () => {
  const faults = new Faults({ ...NO_FAULTS, slots: 2, serviceMs: 100 });
  const start = performance.now();
  await Promise.all(Array.from({ length: 6 }, () => faults.before(present()))); // three rounds of two
  const took = performance.now() - start;
  assert.ok(took > 295, `six calls on two slots of 100 ms took ${took} ms`);
});

test('as many as there are slots are at work at once', async () => {
  const slots = new Slots(2);
  let [atWork, most] = [0, 0];
  const work = async () => {
    most = Math.max(most, ++atWork);
    await soon(1);
    atWork--;
  };
  await Promise.all(Array.from({ length: 6 }, () => slots.with(work)));
  assert.equal(most, 2);
});

test('lifting the slots frees the calls that wait for one', async () => {
  const faults = new Faults({ ...NO_FAULTS, slots: 1, serviceMs: 300 });
  const first = faults.before(present());
  const second = faults.before(present());
  faults.set(NO_FAULTS);
  assert.equal(await Promise.race([first.then(() => 'first'), second.then(() => 'second')]), 'second');
  await first;
});

test('the line for the slots has an end', { timeout: 10_000 }, async () => {
  const faults = new Faults({ ...NO_FAULTS, slots: 1, serviceMs: 300 });
  const waiting = Array.from({ length: WORK_MAX }, () => faults.before(present()));
  await assert.rejects(faults.before(present()), { code: status.RESOURCE_EXHAUSTED });
  faults.set(NO_FAULTS);
  await Promise.all(waiting);
  faults.set({ ...NO_FAULTS, slots: 1 });
  await faults.before(present());
});

test('knobs that make no sense are refused and the old ones stay', () => {
  const faults = new Faults({ ...NO_FAULTS, latencyMs: 7 });
  for (const wrong of [{ errorPct: 101 }, { latencyMs: -1 }, { code: 17 }, { slots: -1 }, { serviceMs: -1 }]) {
    assert.throws(() => faults.set({ ...NO_FAULTS, ...wrong }), { code: status.INVALID_ARGUMENT });
  }
  assert.equal(faults.knobs.latencyMs, 7);
});

test('knobs come from the environment, an error code by name or by number', () => {
  assert.deepEqual(knobsFrom({}), NO_FAULTS);
  assert.equal(knobsFrom({ ERROR_CODE: '14' }).code, status.UNAVAILABLE);
  assert.equal(knobsFrom({ ERROR_CODE: 'RESOURCE_EXHAUSTED' }).code, status.RESOURCE_EXHAUSTED);
  assert.equal(knobsFrom({ LATENCY_MS: '300', SLOTS: '4' }).latencyMs, 300);
  for (const env of [{ ERROR_CODE: 'OOPS' }, { ERROR_CODE: '99' }, { LATENCY_MS: 'soon' }, { ERROR_PCT: '101' }]) {
    assert.throws(() => knobsFrom(env));
  }
});
