/** A visitor whose order may have been taken comes back to the checkout. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { NO_FAULTS } from '@boutique/chassis';
import { Front } from './front';
import { Neighbours, open } from './neighbours';

const SESSION = { cookie: 'session=unlucky' };
const ORDER = {
  email: 'ann@example.org',
  street_address: '1 Mill Lane',
  city: 'Weir',
  country: 'England',
  zip_code: '12345',
  card_number: '4432-8015-6152-0454',
  card_month: '1',
  card_year: '2039',
  card_cvv: '672',
  idempotency_key: 'k-1',
};

const neighbours = new Neighbours();
let front: Front;
let at: string;

before(async () => {
  const [opened, port] = await open(await neighbours.start());
  front = opened;
  at = `http://127.0.0.1:${port}`;
});

after(async () => {
  await front.drain(100);
  neighbours.stop();
});

const get = (path: string): Promise<Response> => fetch(`${at}${path}`, { redirect: 'manual', headers: SESSION });
const post = (path: string, fields: Record<string, string>): Promise<Response> =>
  fetch(`${at}${path}`, { redirect: 'manual', method: 'POST', body: new URLSearchParams(fields), headers: SESSION });

test('who comes back for an order that was taken all the same, and has emptied the cart, is led to the orders', async () => {
  await post('/cart', { product_id: 'mug' });
  neighbours.checkout.set({ ...NO_FAULTS, errorPct: 100 });
  const page = await (await post('/checkout', ORDER)).text();
  assert.match(page, /data-unavailable="checkout"[^]*href="\/checkout\?key=k-1"[^]*href="\/orders"/);
  await post('/cart/empty', {}); // by checkout, for the order that it took
  const back = await get('/checkout?key=k-1');
  assert.deepEqual([back.status, back.headers.get('location')], [303, '/orders']);
  const first = await get('/checkout');
  assert.deepEqual([first.status, first.headers.get('location')], [303, '/cart']);
});
