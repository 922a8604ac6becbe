/** What visitors and services may say, and what the shop makes of it: no markup, no endless streams, cookies that stay its own. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { WebSocket } from 'ws';
import { Order } from './facts';
import { Front } from './front';
import { Neighbours, open } from './neighbours';

const MARKUP = `"'><script>alert(1)</script>`;
const EVE = { headers: { cookie: 'session=eve' } };

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

const get = (path: string, init: RequestInit = EVE): Promise<Response> => fetch(`${at}${path}`, { redirect: 'manual', ...init });

test('whatever is asked for, and whatever a service says of an order, is text on a page', async () => {
  const money = { currencyCode: 'USD', units: 1, nanos: 0 };
  const order: Order = {
    orderId: `o${MARKUP}`,
    status: 'CANCELLED',
    userId: 'eve',
    total: money,
    items: [{ productId: MARKUP, quantity: 1, cost: money }],
    transactionId: MARKUP,
    trackingId: MARKUP,
    refunded: true,
    reason: MARKUP,
  };
  neighbours.orders.set('o-1', { ...order, orderId: 'o-1' });
  neighbours.orders.set('o-2', order);
  neighbours.append('o-3', { orderPlaced: { userId: 'eve', items: order.items, total: money } });
  neighbours.append('o-3', { shipmentFailed: { reason: MARKUP } });
  const asked = encodeURIComponent(MARKUP);
  const paths = [`/search?q=${asked}`, `/?currency=${asked}`, `/product/${asked}`, `/orders/${asked}`, `/${asked}`, '/orders', '/orders/o-1', '/orders/o-3'];
  for (const path of paths) {
    const page = await (await get(path)).text();
    assert.doesNotMatch(page, /<script>|"'>/, path);
    assert.match(page, /<html/, path);
  }
  const form = { method: 'POST', body: new URLSearchParams({ email: MARKUP, city: MARKUP, country: MARKUP }), ...EVE };
  await get('/cart', { method: 'POST', body: new URLSearchParams({ product_id: 'mug' }), ...EVE });
  assert.match(await (await get('/checkout', form)).text(), /value="&#34;&#39;&#62;&#60;script/);
});

test('no script but the shop’s own runs, nobody frames it, and nothing of a visitor is kept by caches', async () => {
  for (const path of ['/', '/nowhere', '/cart']) {
    const { headers } = await get(path);
    const policy = headers.get('content-security-policy')!;
    for (const rule of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]) assert.ok(policy.includes(rule), rule);
    assert.deepEqual([headers.get('cache-control'), headers.get('x-content-type-options')], ['no-store', 'nosniff'], path);
  }
  for (const path of ['/style.css', '/live.js', '/strip.js']) assert.equal((await get(path)).headers.get('cache-control'), 'max-age=60', path);
  assert.equal((await get('/api/cart')).headers.get('cache-control'), 'no-store');
});

test('cookies are for this shop alone, not for scripts, and not for plain connections where there are others', async () => {
  const session = async (headers: Record<string, string>) => (await get('/', { headers })).headers.get('set-cookie')!;
  assert.match(await session({}), /^session=[\w-]{36}; Path=\/; HttpOnly; SameSite=Lax$/);
  assert.match(await session({ 'x-forwarded-proto': 'https' }), /; Secure$/);
  assert.match(await session({ cookie: 'session=a b' }), /^session=[\w-]{36};/, 'what is no session is none');
  assert.equal((await get('/')).headers.get('set-cookie'), null);
});

test('there are so many price streams and web sockets, and no more; who asks for the head of one gets no stream', async () => {
  assert.equal((await get('/live', { method: 'HEAD' })).status, 404);
  const stop = new AbortController();
  const streams = await Promise.all(Array.from({ length: 256 }, () => get('/live', { signal: stop.signal })));
  assert.ok(streams.every(({ status }) => status === 200));
  const refused = await get('/live');
  assert.deepEqual([refused.status, refused.headers.get('retry-after')], [503, '5']);
  stop.abort();
  let status = 503;
  for (const end = Date.now() + 5_000; status === 503 && Date.now() < end; ) {
    const one = new AbortController();
    status = (await get('/live', { signal: one.signal })).status;
    one.abort();
  }
  assert.equal(status, 200, 'those that left make room');

  const sockets = Array.from({ length: 256 }, () => new WebSocket(`${at.replace('http', 'ws')}/ws`));
  await Promise.all(sockets.map((socket) => once(socket, 'open')));
  const [error] = await once(new WebSocket(`${at.replace('http', 'ws')}/ws`), 'error');
  assert.match(error.message, /503/);
  for (const socket of sockets) socket.terminate();
});

test('half of a surrogate pair, which JSON can say and UTF-8 cannot, breaks nobody', async () => {
  const headers = { cookie: 'session=mallory', 'content-type': 'application/json' };
  const post = (path: string, body: string) => get(path, { method: 'POST', headers, body });
  assert.equal((await post('/api/cart', '{"product_id":"mug"}')).status, 201);
  const address = '"street_address":"1 Mill Lane","city":"Weir","country":"England","zip_code":"12345"';
  const card = '"card_number":"4432801561520454","card_month":"1","card_year":"2039","card_cvv":"672"';
  const placed = await post('/api/checkout', `{"email":"\\ud800@b",${address},${card}}`);
  assert.equal(placed.status, 201);
  assert.deepEqual(neighbours.emails.slice(-1), ['\ufffd@b']);
});

test('nor does one that is cut in half where a word is cut short', async () => {
  const raft = '\u{1f6f6}';
  const word = 'x'.repeat(99) + raft;
  await get(`/search?q=${encodeURIComponent(word)}`);
  const fields = {
    email: `${'e'.repeat(97)}@b${raft}`, street_address: word, city: word, state: word, country: word, zip_code: '12345',
    card_number: '4432801561520454', card_month: '1', card_year: '2039', card_cvv: '672',
  };
  await get('/cart', { method: 'POST', body: new URLSearchParams({ product_id: 'mug' }), ...EVE });
  const placed = await get('/checkout', { method: 'POST', body: new URLSearchParams(fields), ...EVE });
  assert.equal(placed.status, 200);
  // Half a pair arrives here as U+FFFD; a service in Go would not take the message.
  assert.deepEqual([neighbours.queries.at(-1), neighbours.emails.at(-1)], ['x'.repeat(99), `${'e'.repeat(97)}@b`]);
});
