import assert from 'node:assert/strict';
import { test } from 'node:test';
import { format, payable, sum, times } from './money';

const euros = (units: number, nanos = 0) => ({ currencyCode: 'EUR', units, nanos });

test('money is multiplied and added without losing a billionth', () => {
  assert.deepEqual(times(euros(0, 333_333_333), 3), euros(0, 999_999_999));
  assert.deepEqual(sum('EUR', [euros(1, 999_999_999), euros(0, 1)]), euros(2));
  assert.deepEqual(sum('EUR', []), euros(0));
});

test('prices are whole cents, or whole yen', () => {
  assert.deepEqual(payable(euros(11, 516_491_616)), euros(11, 520_000_000));
  assert.deepEqual(payable(euros(11, 514_999_999)), euros(11, 510_000_000));
  assert.deepEqual(payable({ currencyCode: 'JPY', units: 99, nanos: 500_000_000 }), {
    currencyCode: 'JPY',
    units: 100,
    nanos: 0,
  });
});

test('money is written as people write it', () => {
  assert.equal(format(euros(1234, 500_000_000)), '€1,234.50');
  assert.equal(format({ currencyCode: 'JPY', units: 1890, nanos: 0 }), '¥1,890');
});
