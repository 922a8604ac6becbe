import assert from 'node:assert/strict';
import { test } from 'node:test';
import { convert, Money } from './money';
import { CODES } from './rates';

const usd = (units: number, nanos = 0): Money => ({ currencyCode: 'USD', units, nanos });

test('an amount is converted over the euro, exact to a billionth', () => {
  assert.deepEqual(convert(usd(1, 85_400_000), 'EUR'), { currencyCode: 'EUR', units: 1, nanos: 0 });
  assert.deepEqual(convert({ currencyCode: 'EUR', units: 1, nanos: 0 }, 'JPY'), {
    currencyCode: 'JPY',
    units: 163,
    nanos: 850_000_000,
  });
});

test('a currency into itself changes nothing, whatever the amount', () => {
  for (const code of CODES) {
    const money = { currencyCode: code, units: 123_456_789, nanos: 999_999_999 };
    assert.deepEqual(convert(money, code), money);
  }
});

test('units and nanos of a debt are both negative', () => {
  const { units, nanos } = convert(usd(-12, -500_000_000), 'EUR');
  assert.deepEqual([units, nanos], [-11, -516_491_616]);
});

test('there and back is less than a millionth away', () => {
  for (const code of CODES) {
    const { units, nanos } = convert(convert(usd(79, 900_000_000), code), 'USD');
    assert.ok(Math.abs(units + nanos / 1e9 - 79.9) < 1e-6, code);
  }
});

test('unknown currencies and missing amounts are refused', () => {
  const cases: [Money | null, string][] = [
    [null, 'EUR'],
    [usd(1), 'XXX'],
    [usd(1), 'toString'],
    [{ currencyCode: '', units: 1, nanos: 0 }, 'EUR'],
  ];
  for (const [money, code] of cases) assert.throws(() => convert(money, code), { code: 3 });
});

test('an amount that this service cannot count exactly is refused, and so is one that comes to as much', () => {
  const most = usd(Number.MAX_SAFE_INTEGER);
  assert.deepEqual(convert(most, 'USD'), most);
  for (const [money, code] of [[usd(2 ** 53), 'USD'], [usd(-(2 ** 63)), 'EUR'], [most, 'JPY'], [usd(-Number.MAX_SAFE_INTEGER), 'JPY']] as const) {
    assert.throws(() => convert(money, code), { code: 3 }, `${money.units}`);
  }
});
