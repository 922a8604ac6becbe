/** The storefront as its visitors see it, with neighbours that are well, and with neighbours that are not. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, afterEach, before, test } from 'node:test';
import { Faults, NO_FAULTS } from '@boutique/chassis';
import { status } from '@grpc/grpc-js';
import { WebSocket } from 'ws';
import { Order } from './facts';
import { Front } from './front';
import { Neighbours, open } from './neighbours';
import { Settings, settingsFrom } from './settings';

const DOWN = { ...NO_FAULTS, errorPct: 100 };
const TRACEPARENT = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

const neighbours = new Neighbours();
const faults = new Faults();
let settings: Settings;
let front: Front;
let port: number;

before(async () => {
  settings = await neighbours.start();
  [front, port] = await open(settings, faults);
});

afterEach(() => {
  const { catalog, currency, cart, recommendation, ads, checkout, orderview, orderlog } = neighbours;
  for (const each of [faults, catalog, currency, cart, recommendation, ads, checkout, orderview, orderlog]) each.set(NO_FAULTS);
});

after(async () => {
  await front.drain(100);
  neighbours.stop();
});

function visit(path: string, init: RequestInit = {}, to = port): Promise<Response> {
  return fetch(`http://127.0.0.1:${to}${path}`, { redirect: 'manual', ...init });
}

const form = (fields: Record<string, string>, headers = {}): RequestInit => ({
  method: 'POST',
  body: new URLSearchParams(fields),
  headers,
});

test('the home page shows every product, escaped, in the visitor’s currency', async () => {
  const home = await visit('/');
  const page = await home.text();
  assert.equal(home.status, 200);
  assert.match(page, /Mug &#60;deep&#62;/);
  assert.match(page, /€20\.00/);
  assert.match(page, /€110\.00/);
  assert.equal(home.headers.get('boutique-degraded'), null);
});

test('a visitor can choose a currency, put things in the cart, see them, and empty it', async () => {
  const currency = await visit('/currency', form({ currency: 'JPY' }));
  const session = (await visit('/')).headers.get('set-cookie')!.split(';')[0]!;
  const cookies = { cookie: `${session}; ${currency.headers.get('set-cookie')!.split(';')[0]}` };

  const added = await visit('/cart', form({ product_id: 'mug', quantity: '3' }, cookies));
  assert.deepEqual([added.status, added.headers.get('location')], [303, '/cart']);
  const full = await (await visit('/cart', { headers: cookies })).text();
  assert.match(full, /Mug[^]*¥20[^]*¥60[^]*Together[^]*¥60/);
  assert.match(full, /<span class="count">3</);

  assert.equal((await visit('/cart/empty', form({}, cookies))).status, 303);
  assert.match(await (await visit('/cart', { headers: cookies })).text(), /Your cart is empty/);
});

test('one visitor does not see the cart of another', async () => {
  await visit('/api/cart', form({ product_id: 'mug' }, { cookie: 'session=one' }));
  const other = await (await visit('/api/cart', { headers: { cookie: 'session=other' } })).json();
  assert.deepEqual(other.items, []);
});

test('search, product and api answer; unknown pages and products do not exist', async () => {
  assert.match(await (await visit('/search?q=Stool')).text(), /1 for “Stool”/);
  assert.match(await (await visit('/search?q=%3Cb%3E')).text(), /Nothing for “&#60;b&#62;”/);
  assert.match(await (await visit('/product/mug')).text(), /You may also like[^]*Stool/);
  const { products, degraded } = await (await visit('/api/products?q=Mug')).json();
  assert.deepEqual([products.length, products[0].priceText, degraded], [1, '€20.00', []]);
  for (const path of ['/product/anvil', '/nowhere', '/product/%00']) assert.equal((await visit(path)).status, 404, path);
});

test('nonsense in a form is refused', async () => {
  for (const fields of [{ product_id: '' }, { product_id: 'mug', quantity: '11' }, { product_id: '../x' }]) {
    assert.equal((await visit('/cart', form(fields as Record<string, string>))).status, 400);
  }
  assert.equal((await visit('/currency', form({ currency: 'euro' }))).status, 400);
  assert.equal((await visit('/api/cart', form({ product_id: 'm'.repeat(20_000) }))).status, 413);
});

test('a cart that is full says so, and is not said to be out of reach', async () => {
  const cookies = { cookie: 'session=collector' };
  let last = await visit('/cart', form({ product_id: 'mug' }, cookies));
  for (let more = 0; more < 30 && last.status === 303; more++) last = await visit('/cart', form({ product_id: 'mug' }, cookies));
  assert.equal(last.status, 422);
  assert.match(await last.text(), /The cart is full\./);
  const api = await visit('/api/cart', form({ product_id: 'mug' }, cookies));
  assert.deepEqual([api.status, await api.json()], [422, { error: 'The cart is full.' }]);
});

test('what nobody sells does not get into a cart, where it could be counted and not be seen; it may where the catalog does not say', async () => {
  const cookies = { cookie: 'session=dreamer' };
  const refused = await visit('/cart', form({ product_id: 'anvil' }, cookies));
  assert.equal(refused.status, 422);
  assert.match(await refused.text(), /Nobody sells that here\./);
  const api = await visit('/api/cart', form({ product_id: 'anvil' }, cookies));
  assert.deepEqual([api.status, await api.json()], [422, { error: 'Nobody sells that here.' }]);
  assert.match(await (await visit('/', { headers: cookies })).text(), /<span class="count">0</);
  neighbours.catalog.set(DOWN);
  assert.equal((await visit('/cart', form({ product_id: 'mug' }, cookies))).status, 303);
});

test('currency is asked once a product, or once in all when batching is on', async () => {
  neighbours.calls.length = 0;
  await visit('/api/products');
  assert.equal(neighbours.calls.filter((method) => method === 'convert').length, 2);

  const [batching, at] = await open({ ...settings, currencyBatch: true }, faults);
  const { products } = await (await visit('/api/products', {}, at)).json();
  assert.equal(products[0].priceText, '€20.00');
  assert.deepEqual(neighbours.calls.slice(-2), ['listProducts', 'convertBatch']);
  await batching.drain(100);
});

test('the traceparent goes along to every service, and nothing else takes its place', async () => {
  neighbours.traceparents.clear();
  await visit('/product/mug', { headers: { traceparent: TRACEPARENT } });
  assert.deepEqual([...neighbours.traceparents], [TRACEPARENT]);
});

test('with currency down, a shop that never heard of rates has all prices in dollars and says so', async () => {
  neighbours.currency.set(DOWN);
  const [other, at] = await open(settings);
  const home = await visit('/', {}, at);
  const page = await home.text();
  assert.equal(home.status, 200);
  assert.equal(home.headers.get('boutique-degraded'), 'currency');
  assert.match(page, /prices are in USD[^]*\$10\.00[^]*\$55\.00/);
  assert.doesNotMatch(page, /€/);
  await other.drain(100);
});

test('a currency that the shop does not have cannot be chosen, and who asks for it all the same is not told of an outage', async () => {
  const chosen = await visit('/currency', form({ currency: 'XYZ' }));
  assert.deepEqual([chosen.status, chosen.headers.get('set-cookie')?.includes('currency=')], [400, false]);
  assert.match(await chosen.text(), /XYZ is no currency of this shop\./);
  const home = await visit('/?currency=XYZ');
  assert.deepEqual([home.status, home.headers.get('boutique-degraded')], [200, null]);
  const page = await home.text();
  assert.match(page, /\$10\.00[^]*\$55\.00/);
  assert.doesNotMatch(page, /taking a break/);
  neighbours.currency.set(DOWN);
  assert.equal((await visit('/currency', form({ currency: 'XYZ' }))).status, 303, 'where nobody says which there are, any may be one');
});

test('with currency merely slow, the page waits for it', async () => {
  neighbours.currency.set({ ...NO_FAULTS, latencyMs: 300 });
  const start = performance.now();
  const page = await (await visit('/')).text();
  assert.ok(performance.now() - start >= 295);
  assert.match(page, /€20\.00/);
});

test('with recommendation down, the product is there and a placeholder in their place', async () => {
  neighbours.recommendation.set(DOWN);
  const product = await visit('/product/mug');
  assert.equal(product.status, 200);
  assert.equal(product.headers.get('boutique-degraded'), 'recommendation');
  assert.match(await product.text(), /class="placeholder" data-part="recommendations"/);
});

test('with the cart down, the shop is open and the cart honest', async () => {
  neighbours.cart.set(DOWN);
  const home = await visit('/');
  assert.deepEqual([home.status, home.headers.get('boutique-degraded')], [200, 'cart']);
  assert.match(await home.text(), /Your cart cannot be reached just now[^]*Mug/);
  for (const cart of [await visit('/cart'), await visit('/cart', form({ product_id: 'mug' }))]) {
    assert.deepEqual([cart.status, cart.headers.get('retry-after')], [503, '2']);
    assert.match(await cart.text(), /data-unavailable="cart"/);
  }
});

test('with ads down, their place says so and everything else is there', async () => {
  neighbours.ads.set(DOWN);
  for (const [path, content] of [['/', /Mug/], ['/product/mug', /Put in the cart/]] as const) {
    const shown = await visit(path);
    assert.deepEqual([shown.status, shown.headers.get('boutique-degraded')], [200, 'ads'], path);
    const text = await shown.text();
    assert.match(text, content);
    assert.match(text, /class="ad placeholder" data-part="ads"/);
  }
});

test('an ad goes with the product, and is escaped', async () => {
  assert.match(await (await visit('/')).text(), /<a href="\/product\/mug">Mugs &#38; more for all<\/a>/);
  assert.match(await (await visit('/product/mug')).text(), /Mugs &#38; more for kitchen/);
});

/** A visitor with a mug in the cart, and the cookies of that visitor. */
async function shopper(name: string): Promise<{ cookie: string }> {
  const cookies = { cookie: `session=${name}` };
  assert.equal((await visit('/cart', form({ product_id: 'mug', quantity: '2' }, cookies))).status, 303);
  return cookies;
}

const ORDER = {
  email: 'ann@example.org',
  street_address: '1 Mill Lane',
  city: 'Weir <upon> Water',
  country: 'England',
  zip_code: '12345',
  card_number: '4432-8015-6152-0454',
  card_month: '1',
  card_year: '2039',
  card_cvv: '672',
  idempotency_key: 'key-1',
};

test('a visitor orders what is in the cart, with a form and nothing else', async () => {
  const cookies = await shopper('buyer');
  assert.match(await (await visit('/cart', { headers: cookies })).text(), /href="\/checkout"/);
  const asked = await (await visit('/checkout', { headers: cookies })).text();
  assert.match(asked, /2 × Mug[^]*€40\.00[^]*<form class="checkout" action="\/checkout" method="post">/);
  assert.match(asked, /name="idempotency_key" value="[\w-]{36}"/);

  const placed = await visit('/checkout', form(ORDER, cookies));
  assert.equal(placed.status, 200);
  assert.match(await placed.text(), /data-order="order-1" data-state="CONFIRMED"[^]*WB-key-1[^]*2 × Mug[^]*data-total>€24\.00/);
  assert.match(await (await visit('/cart', { headers: cookies })).text(), /Your cart is empty/);
});

test('an order that is only written down is said to be pending', async () => {
  const [eventful, at] = await open({ ...settings, checkoutMode: 'EVENT' });
  const page = await (await visit('/checkout', form(ORDER, await shopper('patient')), at)).text();
  assert.match(page, /Order accepted, payment pending[^]*data-state="ACCEPTED"[^]*data-timeline="order-1"[^]*href="\/orders\/order-1"/);
  assert.equal(settings.checkoutMode, 'SYNC');
  assert.throws(() => settingsFrom({ CHECKOUT_MODE: 'ASYNC' }), /expected SYNC or EVENT/);
  await eventful.drain(100);
});

test('with checkout down, the page says so, the cart is kept, and the way back makes no second order', async () => {
  const cookies = await shopper('unlucky');
  neighbours.checkout.set(DOWN);
  const tried = await visit('/checkout', form({ ...ORDER, idempotency_key: 'k-1' }, cookies));
  assert.deepEqual([tried.status, tried.headers.get('retry-after')], [503, '2']);
  // Whether it was taken nobody knows: sent again it has the same key.
  const [, back] = /data-unavailable="checkout"[^]*your cart is kept[^]*href="(\/checkout[^"]*)"/.exec(await tried.text())!;
  assert.match(await (await visit(back!, { headers: cookies })).text(), /2 × Mug[^]*name="idempotency_key" value="k-1"/);
  neighbours.checkout.set({ ...DOWN, code: status.ABORTED }); // taken back
  const over = await (await visit('/checkout', form({ ...ORDER, idempotency_key: 'k-2' }, cookies))).text();
  assert.match(over, /href="\/checkout\?key=(?!k-2)/);
  assert.doesNotMatch(await (await visit('/checkout?key=%22%3E', { headers: cookies })).text(), /value="(&#34;|"?>)/);
  const api = await visit('/api/checkout', form(ORDER, cookies));
  assert.deepEqual([api.status, await api.json()], [503, { error: 'checkout is unavailable' }]);
});

test('a card that is declined is asked for again, and what else was typed is kept', async () => {
  const cookies = await shopper('broke');
  const tried = await visit('/checkout', form({ ...ORDER, card_number: '3782 822463 10005' }, cookies));
  const page = await tried.text();
  assert.equal(tried.status, 422);
  assert.match(page, /data-refused>No such &#60;card&#62;\. Nothing was ordered[^]*value="Weir &#60;upon&#62; Water"/);
  assert.doesNotMatch(page, /3782/);
  assert.equal((await visit('/checkout', form(ORDER, cookies))).status, 200);
});

test('there is no checkout for an empty cart', async () => {
  const cookies = { cookie: 'session=nothing' };
  for (const tried of [await visit('/checkout', { headers: cookies }), await visit('/checkout', form(ORDER, cookies))]) {
    assert.deepEqual([tried.status, tried.headers.get('location')], [303, '/cart']);
  }
});

test('nonsense in the checkout form goes nowhere', async () => {
  const cookies = await shopper('careless');
  neighbours.calls.length = 0;
  for (const spoilt of [
    { email: 'nobody' },
    { street_address: ' ' },
    { zip_code: '12 345' },
    { card_number: 'four' },
    { card_month: '' },
    { card_cvv: '1' },
  ]) {
    assert.equal((await visit('/checkout', form({ ...ORDER, ...spoilt }, cookies))).status, 422, JSON.stringify(spoilt));
    assert.equal((await visit('/api/checkout', form({ ...ORDER, ...spoilt }, cookies))).status, 400);
  }
  assert.ok(!neighbours.calls.includes('placeOrder'));
});

const MUGS = [{ productId: 'mug', quantity: 2, cost: { currencyCode: 'EUR', units: 40, nanos: 0 } }];
const TOTAL = { currencyCode: 'EUR', units: 44, nanos: 0 };
const ANN = { headers: { cookie: 'session=ann' } };
const placed = { orderPlaced: { userId: 'ann', items: MUGS, total: TOTAL } };

function known(orderId: string, more: Partial<Order>): Order {
  const order = { orderId, status: 'PLACED' as const, userId: 'ann', items: MUGS, total: TOTAL, transactionId: '', trackingId: '', refunded: false, reason: '', ...more };
  neighbours.orders.set(orderId, order);
  neighbours.asOfSeq = 17;
  return order;
}

test('an order’s page shows it as orderview has it, and needs no script', async () => {
  known('o-shipped', { status: 'SHIPPED', transactionId: 't', trackingId: 'WB-<7>' });
  const shown = await visit('/orders/o-shipped', ANN);
  const page = await shown.text();
  assert.deepEqual([shown.status, shown.headers.get('boutique-degraded')], [200, null]);
  assert.match(page, /data-state="SHIPPED"[^]*On its way[^]*data-tracking>WB-&#60;7&#62;/);
  assert.deepEqual(chips(page), ['Placed', 'Paid', 'Shipped']);
  assert.match(page, /2 × Mug[^]*€40\.00[^]*data-total>€44\.00[^]*as of fact 17[^]*<a href="\/orders\/o-shipped">Look again/);
  assert.match(page, /aria-live="polite"[^>]*data-timeline="o-shipped"/);
});

test('an order that is over has nothing to wait for', async () => {
  known('o-over', { status: 'CANCELLED', transactionId: 't', refunded: true, reason: 'nobody delivers to Atlantis' });
  const page = await (await visit('/orders/o-over', ANN)).text();
  assert.match(page, /Order cancelled[^]*nobody delivers to Atlantis[^]*Your money is on its way back/);
  assert.deepEqual(chips(page), ['Placed', 'Paid', 'Not shipped', 'Refunded', 'Cancelled']);
  assert.doesNotMatch(page, /data-timeline/);
});

test('an order that orderview does not know yet is read in the log', async () => {
  neighbours.append('o-new', placed);
  const shown = await visit('/orders/o-new', ANN);
  const page = await shown.text();
  assert.deepEqual([shown.status, shown.headers.get('boutique-degraded')], [200, 'orderview']);
  assert.match(page, /data-state="PLACED"[^]*Order accepted, payment pending[^]*straight from the log[^]*2 × Mug/);
  assert.match(page, new RegExp(`as of fact ${neighbours.facts.length}<`));
});

test('with orderview down and the log up, the page is as new as the log', async () => {
  neighbours.append('o-paid', placed);
  neighbours.append('o-paid', { paymentAuthorized: { transactionId: 't' } });
  neighbours.orderview.set(DOWN);
  const shown = await visit('/orders/o-paid', ANN);
  assert.deepEqual([shown.status, shown.headers.get('boutique-degraded')], [200, 'orderview']);
  assert.deepEqual(chips(await shown.text()), ['Placed', 'Paid']);
});

test('with orderview and the log down, an order is still accepted, and pending', async () => {
  neighbours.orderview.set(DOWN);
  neighbours.orderlog.set(DOWN);
  const shown = await visit('/orders/o-paid', ANN);
  assert.deepEqual([shown.status, shown.headers.get('boutique-degraded')], [200, 'orderview']);
  assert.match(await shown.text(), /data-state="UNKNOWN"[^]*Order accepted, payment pending[^]*as of when it was placed/);
  neighbours.orderview.set(NO_FAULTS);
  assert.match(await (await visit('/orders/o-paid', ANN)).text(), new RegExp(`data-state="UNKNOWN"[^]*as of fact ${neighbours.asOfSeq}<`));
});

test('nobody sees the order of another, nor one that there is not', async () => {
  known('o-hers', {});
  neighbours.append('o-hers-too', placed);
  for (const id of ['o-hers', 'o-hers-too', 'o-nobodys']) {
    const shown = await visit(`/orders/${id}`, { headers: { cookie: 'session=eve' } });
    assert.deepEqual([shown.status, shown.headers.get('boutique-degraded')], [404, null], id);
    assert.equal((await visit(`/live/orders/${id}`, { headers: { cookie: 'session=eve' } })).status, 404, id);
  }
});

test('a visitor’s orders are listed; with orderview down there is an honest 503', async () => {
  known('o-listed', { status: 'CONFIRMED' });
  assert.match(await (await visit('/orders', ANN)).text(), /href="\/orders\/o-listed"[^]*Thank you![^]*€44\.00[^]*as of fact 17/);
  assert.match(await (await visit('/orders', { headers: { cookie: 'session=new' } })).text(), /No orders yet/);
  neighbours.orderview.set(DOWN);
  const gone = await visit('/orders', ANN);
  assert.equal(gone.status, 503);
  assert.match(await gone.text(), /data-unavailable="orderview"/);
});

test('a timeline fills in as events until the order is over, with the trace of who asked', async () => {
  neighbours.append('o-live', placed);
  neighbours.traceparents.clear();
  const events = await visit('/live/orders/o-live', { headers: { ...ANN.headers, traceparent: TRACEPARENT } });
  assert.equal(events.headers.get('content-type'), 'text/event-stream');
  assert.deepEqual([...neighbours.traceparents], [TRACEPARENT]);
  neighbours.append('o-live', { paymentAuthorized: { transactionId: 't' } });
  neighbours.append('o-live', { orderShipped: { trackingId: 'WB-1' } });
  neighbours.append('o-live', { orderConfirmed: {} });
  const heard = await events.text();
  assert.deepEqual(told(heard), ['Placed', 'Paid', 'Shipped', 'Confirmed']);
  assert.match(heard, /^retry: 2000\n\nid: \d+\ndata: {"seq":\d+,"step":"Placed","note":"","title":"Order accepted, payment pending","last":false}\n\n/);

  const last = Number(/id: (\d+)\n[^]*?Paid/.exec(heard)![1]) + 1;
  const again = await visit('/live/orders/o-live', { headers: { ...ANN.headers, 'last-event-id': String(last) } });
  assert.deepEqual(told(await again.text()), ['Shipped', 'Confirmed']);
  const over = await visit('/live/orders/o-live', { headers: { ...ANN.headers, 'last-event-id': String(last + 2) } });
  assert.deepEqual([over.status, over.headers.get('content-length')], [204, null]);
  assert.ok(await soon(() => neighbours.followers.size === 0), 'nobody listens, and the log is still followed');
});

test('a browser that goes away is forgotten, and the log with it', async () => {
  neighbours.append('o-left', placed);
  const stop = new AbortController();
  const events = await visit('/live/orders/o-left', { ...ANN, signal: stop.signal });
  assert.equal(events.status, 200);
  assert.ok(await soon(() => neighbours.followers.size === 1));
  stop.abort();
  assert.ok(await soon(() => neighbours.followers.size === 0));
});

test('a timeline outlasts a log that goes and comes back', async () => {
  neighbours.append('o-cut', placed);
  const events = await visit('/live/orders/o-cut', ANN);
  assert.ok(await soon(() => neighbours.followers.size === 1));
  neighbours.append('o-cut', { paymentAuthorized: { transactionId: 't' } });
  const paid = neighbours.facts.length;
  neighbours.calls.length = 0;
  neighbours.hangUp();
  neighbours.append('o-cut', { orderCancelled: { reason: 'no parcels left' } });
  assert.deepEqual(told(await events.text()), ['Placed', 'Paid', 'Cancelled']);
  assert.deepEqual(neighbours.calls, [`subscribe ${paid + 1}`]);
});

test('with the log down, there is no timeline and the browser may come again', async () => {
  neighbours.orderlog.set(DOWN);
  const refused = await visit('/live/orders/o-cut', ANN);
  assert.deepEqual([refused.status, refused.headers.get('retry-after')], [503, '2']);
});

/** The steps that a page, or a stream of events, shows. */
const chips = (page: string): string[] => [...page.matchAll(/data-step="([^"]+)"/g)].map((found) => found[1]!);
const told = (events: string): string[] => [...events.matchAll(/"step":"([^"]+)"/g)].map((found) => found[1]!);

/** Whether it becomes so within two seconds. */
async function soon(isSo: () => boolean): Promise<boolean> {
  for (let tries = 0; tries < 200 && !isSo(); tries++) await new Promise((resolve) => setTimeout(resolve, 10));
  return isSo();
}

test('with the catalog down, there is an honest 503, a page for people and JSON for programs', async () => {
  neighbours.catalog.set(DOWN);
  for (const path of ['/', '/product/mug', '/search?q=mug']) {
    const page = await visit(path);
    assert.deepEqual([page.status, page.headers.get('retry-after')], [503, '2'], path);
    assert.match(await page.text(), /data-unavailable="catalog"/);
  }
  const api = await visit('/api/products');
  assert.deepEqual([api.status, await api.json()], [503, { error: 'catalog is unavailable' }]);
});

test('the knobs touch pages but not the probe', async () => {
  faults.set({ ...DOWN, code: 8 });
  assert.equal((await visit('/')).status, 429);
  assert.equal((await visit('/healthz')).status, 200);
});

test('price ticks arrive as server-sent events', async () => {
  const stop = new AbortController();
  const events = await visit('/live', { signal: stop.signal });
  let heard = '';
  for await (const chunk of events.body!) {
    heard += Buffer.from(chunk).toString();
    if (heard.includes('\n\ndata')) break;
  }
  stop.abort();
  assert.match(heard, /^retry: 2000\n\ndata: {"id":"mug","price":"\$11\.00","at":1}\n\n/);
});

test('for a visitor who left while waiting for a slot no stream is opened', async () => {
  neighbours.append('o-impatient', placed);
  const listening = () => neighbours.watchers.size + neighbours.followers.size;
  for (const path of ['/live', '/live/orders/o-impatient']) {
    assert.ok(await soon(() => listening() === 0), path);
    faults.set({ ...NO_FAULTS, slots: 1, serviceMs: 200 });
    const stop = new AbortController();
    const left = visit(path, { ...ANN, signal: stop.signal });
    await new Promise((resolve) => setTimeout(resolve, 50));
    stop.abort();
    await assert.rejects(left);
    // It has its slot after the one that left, and its answer takes longer than to open a stream.
    assert.equal((await visit('/')).status, 200);
    assert.equal(listening(), 0, path);
  }
});

test('a web socket echoes text as text and bytes as bytes, in order', async () => {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`);
  await once(socket, 'open');
  const heard: [string, boolean][] = [];
  const all = new Promise<void>((resolve) =>
    socket.on('message', (data, binary) => heard.push([String(data), binary]) === 2 && resolve()),
  );
  socket.send('river');
  socket.send(Buffer.from('weir'));
  await all;
  assert.deepEqual(heard, [['river', false], ['weir', true]]);
  socket.close();
});

test('a web socket elsewhere is refused', async () => {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/elsewhere`);
  const [error] = await once(socket, 'error');
  assert.match(error.message, /404/);
});

test('a drain finishes the page in flight, ends streams and sockets, and accepts nothing more', async () => {
  const [own, at] = await open(settings, faults);
  // In flight for as long as the test wants it, on a machine of any speed.
  neighbours.currency.set({ ...NO_FAULTS, freeze: true });
  neighbours.calls.length = 0;
  const page = visit('/', {}, at);
  assert.ok(await soon(() => neighbours.calls.includes('convert')), 'the page is not in flight');
  const events = await visit('/live', {}, at);
  neighbours.append('o-drained', placed);
  const timeline = await visit('/live/orders/o-drained', ANN, at);
  const socket = new WebSocket(`ws://127.0.0.1:${at}/ws`);
  await once(socket, 'open');

  const closed = once(socket, 'close');
  const start = performance.now();
  const drained = own.drain(5_000);
  neighbours.currency.set(NO_FAULTS);
  await drained;
  assert.ok(performance.now() - start < 2_000, 'it waited for its grace');
  assert.equal((await page).status, 200);
  assert.match(await (await page).text(), /€20\.00/);
  await events.text();
  assert.deepEqual(told(await timeline.text()), ['Placed']);
  assert.ok(await soon(() => neighbours.followers.size === 0));
  assert.equal((await closed)[0], 1001);
  await assert.rejects(visit('/', {}, at));
});
