import assert from 'node:assert/strict';
import { test } from 'node:test';
import { traced, traceparentIn } from './trace';

const TRACEPARENT = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

test('a traceparent that came in goes out', () => {
  const traceparent = traceparentIn({ traceparent: TRACEPARENT });
  assert.deepEqual(traced(traceparent).get('traceparent'), [TRACEPARENT]);
});

test('without one, or with something else in its place, nothing goes out', () => {
  for (const headers of [{}, { traceparent: 'ü\u0001' }, { traceparent: [TRACEPARENT, TRACEPARENT] }]) {
    assert.deepEqual(traced(traceparentIn(headers)).get('traceparent'), []);
  }
});
