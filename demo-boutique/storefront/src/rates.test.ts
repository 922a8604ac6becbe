import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Product } from './clients/catalog';
import { Money } from './money';
import { MUG, STOOL } from './neighbours';
import { Rates } from './rates';

const euros = (units: number): Money => ({ currencyCode: 'EUR', units, nanos: 0 });
const MINUTE = 60_000;

test('all prices of a while ago, as of the oldest of them, or none', () => {
  const rates = new Rates();
  rates.remember([MUG], [euros(9)], 1 * MINUTE);
  rates.remember([STOOL], [euros(50)], 2 * MINUTE);
  assert.deepEqual(rates.recall([STOOL, MUG], 'EUR', 3 * MINUTE), { prices: [euros(50), euros(9)], asOf: new Date(MINUTE) });
  assert.equal(rates.recall([MUG], 'JPY', 3 * MINUTE), undefined, 'never said');
  const dearer: Product = { ...STOOL, priceUsd: { ...STOOL.priceUsd, units: 56 } };
  assert.equal(rates.recall([MUG, dearer], 'EUR', 3 * MINUTE), undefined, 'what it costs has changed since');
  assert.ok(rates.recall([MUG], 'EUR', 16 * MINUTE));
  assert.equal(rates.recall([MUG], 'EUR', 16 * MINUTE + 1), undefined, 'too old to show');
});

test('what is remembered is bounded, and the oldest goes first', () => {
  const rates = new Rates();
  const priced = (units: number): Product => ({ ...MUG, priceUsd: { ...MUG.priceUsd, units } });
  for (let units = 0; units <= 5_000; units++) rates.remember([priced(units)], [euros(units)], 0);
  assert.equal(rates.recall([priced(0)], 'EUR', 0), undefined);
  assert.ok(rates.recall([priced(1), priced(5_000)], 'EUR', 0));
});
