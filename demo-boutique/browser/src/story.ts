/** What visitors of the shop go through, when all is well and when it is not. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { fits, NARROW, usable } from './accessible';
import { freeze, mute, tell, thaw, unmute } from './stage';
import { Tab } from './tab';

const PRODUCT = '/product/storm-lantern';
const CHIPS = ['Placed', 'Paid', 'Shipped', 'Confirmed'];

/** The shop asks its sidecar again after this (`OLD_MS` of its strip.ts), and a page that comes first has nothing to show of it. */
const FORGOTTEN_MS = 5_500;

const tile = (name: string): string => `document.querySelector('[data-dependency="${name}"]')`;

export async function looksAround(tab: Tab): Promise<void> {
  await tab.go('/');
  assert.match(await tab.text('h1'), /Goods from the river/);
  assert.ok((await tab.texts('.card .price')).every((price) => /^€\d+\.\d\d$/.test(price)));
  await tab.until('prices tick', `[...document.querySelectorAll('[data-live]')].some((each) => each.textContent.includes('spot'))`);
  await tab.until('the strip hears the sidecar', `document.querySelector('[data-sidecar="there"]')`);
  await tab.until('the catalog has a latency and a limit', `/p99\\s+[\\d.]+ m?s\\s+\\d+ \\/ \\d+/.test(${tile('catalog')}.innerText)`);
  assert.equal(await tab.see(`${tile('catalog')}.dataset.breaker`), 'closed');
  assert.equal(await tab.see(`${tile('catalog')}.dataset.source`), 'live');
  await tab.picture('1-home');
  tell(`home: ${await usable(tab, 'home')} places, all reached by keyboard`);

  await tab.go('/search?q=wool');
  await usable(tab, 'search');
  await tab.resize(NARROW, 640);
  for (const page of [PRODUCT, '/search?q=wool', '/cart', '/']) {
    await tab.go(page);
    await fits(tab, page);
  }
  await tab.picture('2-home-narrow', true);
  await usable(tab, 'home, narrow');
  await tab.resize(1280, 860);
}

/** Pages with nothing on them, and those that say no. */
export async function findsNothing(tab: Tab): Promise<void> {
  for (const [page, heading] of [
    ['/search?q=nobody-has-it', /Nothing/],
    ['/cart', /Your cart is empty/],
    ['/orders', /No orders yet/],
    ['/product/nobody-has-it', /Nobody sells that/],
    ['/orders/nobody-has-it', /You have no such order/],
    ['/nobody-has-it', /That did not work/],
  ] as const) {
    await tab.go(page);
    assert.match(await tab.text('h1'), heading);
    await usable(tab, page);
  }
  await tab.go(PRODUCT);
  await tab.click('.product button.buy');
  await tab.click('a[href="/checkout"]');
  await tab.see(`document.querySelector('[name="card_number"]').value = '1'`);
  await tab.click('form.checkout button.buy');
  assert.match(await tab.text('[data-refused]'), /This is no card number/);
  await tab.picture('12-refused');
  await usable(tab, 'checkout that was refused');
}

/** From the product to the order, with forms alone; says what the page of the order is called. */
async function buys(tab: Tab, look: (page: string) => Promise<void>): Promise<string> {
  await tab.go(PRODUCT);
  await look('product');
  await tab.click('.product button.buy');
  assert.match(await tab.text('main'), /Your cart[^]*Together/);
  await look('cart');
  await tab.click('a[href="/checkout"]');
  assert.match(await tab.text('h1'), /Checkout/);
  await look('checkout');
  await tab.click('form.checkout button.buy');
  return tab.text('h1');
}

/** The order fills in by itself: no page is loaded again. */
export async function buysAndWatches(tab: Tab): Promise<void> {
  let picture = 3;
  const title = await buys(tab, async (page) => {
    await tab.picture(`${picture++}-${page}`);
    await usable(tab, page);
  });
  assert.match(title, /Order accepted/);
  await tab.see('window.isTheSamePage = true');
  const began = performance.now();
  await tab.until('the order is confirmed', `document.querySelector('[data-step="Confirmed"]')`);
  tell(`Placed → Confirmed on the page, live: ${Math.round(performance.now() - began)} ms after it was there`);
  const steps = await tab.see<string[]>(`[...document.querySelectorAll('.timeline li')].map((chip) => chip.dataset.step)`);
  assert.deepEqual(steps, CHIPS);
  assert.match(await tab.text('h1'), /Thank you/i);
  assert.ok(await tab.see('window.isTheSamePage'));
  await tab.picture('6-order');
  await usable(tab, 'order');

  await tab.go('/orders');
  await usable(tab, 'orders');
  await tab.picture('7-orders');
}

/** Recommendations freeze while a page is open: its strip shows it, the next page does without, and all comes back. */
export async function missesRecommendations(tab: Tab, origin: string): Promise<void> {
  const visitors = () => Promise.all(Array.from({ length: 30 }, () => fetch(`${origin}${PRODUCT}`).then((page) => page.text())));
  await tab.go(PRODUCT);
  assert.match(await tab.text('[data-part="recommendations"]'), /You may also like\n+\w/);
  await freeze('recommendation');
  const began = performance.now();
  await visitors();
  await tab.until('the strip of an open page shows that its breaker is not closed', `${tile('recommendation')}.dataset.breaker !== 'closed'`);
  tell(`recommendation is frozen; its breaker open on the page after ${Math.round(performance.now() - began)} ms`);
  assert.match(await tab.see(`document.querySelector('[data-changes]').textContent`), /recommendation: breaker/);

  const took = await tab.go(PRODUCT);
  tell(`the page without recommendations: ${Math.round(took)} ms`);
  assert.match(await tab.text('[data-part="recommendations"]'), /having a rest/);
  assert.match(await tab.text('.product'), /Put in the cart/);
  assert.equal(await tab.see(`${tile('recommendation')}.dataset.source`), 'fallback');
  await tab.picture('8-without-recommendations');
  await usable(tab, 'product without recommendations');

  await thaw('recommendation');
  const thawed = performance.now();
  while ((await tab.see(`${tile('recommendation')}.dataset.breaker`)) !== 'closed') {
    assert.ok(performance.now() - thawed < 30_000, 'the breaker closes again');
    await visitors();
    await sleep(200);
  }
  await tab.go(PRODUCT);
  assert.match(await tab.text('[data-part="recommendations"]'), /You may also like\n+\w/);
  tell(`thawed; closed on the page after ${Math.round(performance.now() - thawed)} ms`);
}

/** Exchange rates and ads freeze: prices are as of a while ago, and an empty place is an empty place. */
export async function seesPricesOfAWhileAgo(tab: Tab): Promise<void> {
  await tab.go('/');
  const before = await tab.texts('.card .price');
  await freeze('currency');
  await freeze('ads');
  await tab.go('/');
  assert.match(await tab.text('.note'), /prices are as of \d\d:\d\d:\d\d UTC/);
  assert.deepEqual(await tab.texts('.card .price'), before);
  assert.match(await tab.text('[data-part="ads"]'), /From our own shelves/);
  assert.equal(await tab.see(`${tile('currency')}.dataset.source`), 'cached');
  await tab.until('the strip shows that the mesh had an ad', `${tile('ads')}.dataset.source === 'mesh'`);
  await tab.picture('9-prices-of-a-while-ago');
  await usable(tab, 'home with prices of a while ago');
  await thaw('currency');
  await thaw('ads');
}

/** One service after the other is gone: each page that there is then can be used as any other. */
export async function missesOneAfterTheOther(tab: Tab): Promise<void> {
  let picture = 13;
  const look = async (page: string, selector: string, says: RegExp): Promise<void> => {
    assert.match(await tab.text(selector), says);
    await tab.picture(`${picture++}-${page.replaceAll(' ', '-')}`);
    await usable(tab, page);
  };

  await freeze('payment');
  await buys(tab, async () => {});
  await look('order with its payment pending', 'h1', /Order accepted, payment pending/);
  const order = `/orders/${await tab.see(`document.querySelector('[data-order]').dataset.order`)}`;
  await tab.go(order);
  await look('order that waits', '.timeline', /Placed/);
  await thaw('payment');

  await freeze('orderview');
  await tab.go(order);
  await look('order out of the log', '[data-part="orderview"]', /straight from the log/);
  await tab.go('/orders');
  await look('orders that cannot be listed', 'h1', /cannot be listed/);
  await freeze('orderlog');
  await tab.go(order);
  await look('order of which nobody knows more', '[data-part="orderview"]', /Nobody who knows more/);
  await thaw('orderlog');
  await thaw('orderview');
  await isWell(tab, '/orders', 'h1', /Your orders/);
  await isWell(tab, order, 'h1', /Thank you/i);
  await look('order that is over', 'h1', /Thank you/i);

  await freeze('cart');
  await tab.go('/');
  await look('home without a cart', '.note', /Your cart cannot be reached/);
  await tab.go('/cart');
  await look('cart that cannot be reached', 'h1', /Your cart cannot be reached/);
  await thaw('cart');
  await isWell(tab, '/cart', 'h1', /Your cart is empty/);

  await tab.go(PRODUCT);
  await tab.click('.product button.buy');
  await tab.click('a[href="/checkout"]');
  await freeze('checkout');
  await tab.click('form.checkout button.buy');
  await look('till that cannot be reached', 'h1', /The till cannot be reached/);
  await thaw('checkout');

  // In a currency that nobody has asked for: there are no prices of a while ago.
  await tab.see(`fetch('/currency', { method: 'POST', body: new URLSearchParams({ currency: 'JPY' }), redirect: 'manual' }).then(() => true)`);
  await freeze('currency');
  await tab.go('/');
  await look('home in dollars', '.note', /prices are in USD/);
  await thaw('currency');

  await freeze('catalog');
  await tab.go('/');
  await look('home without a catalog', 'h1', /The shelves cannot be reached/);
  await thaw('catalog');
  await isWell(tab, '/', 'h1', /Goods from the river/);
}

/**
 * The sidecar does its work and says nothing of it. A page that comes before that is known says that it has not been heard, and one that is open says that it
 * does not answer; both are pages like any other, and its word is there again when it speaks.
 */
export async function hearsNothingOfTheSidecar(tab: Tab): Promise<void> {
  const sidecar = () => tab.see<string>(`document.querySelector('[data-sidecar]').dataset.sidecar`);
  const look = async (picture: string, says: RegExp): Promise<void> => {
    const page = `product, its sidecar ${await sidecar()}`;
    assert.match(await tab.text('.strip .quiet'), says);
    assert.match(await tab.text('[data-part="recommendations"]'), /You may also like\n+\w/, 'nothing is missing but what the sidecar says');
    const tiles = await tab.see<string[]>(`[...document.querySelectorAll('[data-dependency]')].map(({ dataset }) => dataset.breaker)`);
    assert.ok(tiles.length > 0 && tiles.every((breaker) => breaker === 'unknown'), `${page}: it says no more than it knows: ${tiles}`);
    await tab.picture(picture);
    await usable(tab, page);
    await tab.resize(NARROW, 640);
    await fits(tab, `${page}, narrow`);
    await tab.picture(`${picture}-narrow`, true);
    await tab.resize(1280, 860);
  };

  await mute('storefront');
  await tab.withoutScripts();
  // A page that takes longer than the sidecar is given knows more. Nobody is that slow five times.
  let seen = '';
  for (let tries = 0; tries < 5 && seen !== 'unasked'; tries++) {
    await sleep(FORGOTTEN_MS);
    await tab.go(PRODUCT);
    seen = await sidecar();
  }
  assert.equal(seen, 'unasked');
  await tab.withScripts();
  await look('25-sidecar-unheard', /has not been heard yet/);

  await tab.go(PRODUCT);
  await tab.until('the strip of an open page says that the sidecar does not answer', `document.querySelector('[data-sidecar="silent"]')`);
  await look('26-sidecar-silent', /does not answer just now/);
  await unmute('storefront');
  await tab.until('and what it says when it speaks again', `document.querySelector('[data-sidecar="there"]') && ${tile('catalog')}.dataset.breaker === 'closed'`);
  assert.equal(await tab.text('.strip .quiet'), '');
  assert.deepEqual(tab.errors, [], 'nothing broke in the page that nobody saw');
}

/** A shop without a sidecar, and with nobody beside it but the catalog. */
export async function isAlone(tab: Tab): Promise<void> {
  await tab.go('/');
  await tab.until('the strip says that there is no sidecar', `document.querySelector('[data-sidecar="absent"]')`);
  await tab.go('/');
  assert.match(await tab.text('.strip'), /No sidecar stands beside this shop/);
  assert.match(await tab.text('[data-part="ads"]'), /This space is free/);
  assert.deepEqual((await tab.texts('.note')).map((note) => /prices are in USD|cart cannot be reached/.test(note)), [true, true]);
  await tab.picture('24-home-alone');
  await usable(tab, 'home, alone');
  await tab.go(PRODUCT);
  assert.match(await tab.text('[data-part="recommendations"]'), /having a rest/);
  assert.match(await tab.text('[data-part="ads"]'), /This space is free/);
  await usable(tab, 'product, alone');
}

/** What thawed is asked again after a while: a breaker has to close, an order to come to its end. */
async function isWell(tab: Tab, page: string, selector: string, says: RegExp): Promise<void> {
  const end = performance.now() + 30_000;
  for (await tab.go(page); !says.test(await tab.text(selector)); await tab.go(page)) {
    assert.ok(performance.now() < end, `${page} is as before: ${await tab.text('main')}`);
    await sleep(250);
  }
}

/** From search to receipt with the keys alone. */
async function buysByKeyboard(tab: Tab, look: (page: string) => Promise<void>): Promise<string> {
  await tab.go('/');
  await tab.enter('.search input', 'lantern');
  await look('search');
  await tab.enter(`a[href="${PRODUCT}"]`);
  await tab.enter('.product button.buy');
  await look('cart');
  await tab.enter('a[href="/checkout"]');
  await look('checkout');
  await tab.enter('form.checkout button.buy');
  return tab.text('h1');
}

/** No script at all, the narrowest window, no mouse, and a payment that hangs: the order is accepted, and comes to its end when it can. */
export async function buysWithoutScripts(tab: Tab): Promise<void> {
  await tab.withoutScripts();
  await tab.resize(NARROW, 640);
  await freeze('payment');
  const title = await buysByKeyboard(tab, (page) => fits(tab, page));
  assert.match(title, /Order accepted, payment pending/);
  await fits(tab, 'an order that was accepted');
  assert.deepEqual(await tab.texts('.timeline li'), ['Placed']);
  assert.equal(await tab.see(`document.querySelector('[data-sidecar]').dataset.sidecar`), 'there');
  await tab.picture('10-payment-pending');
  await thaw('payment');
  await tab.enter('a[href^="/orders/"]');
  const end = performance.now() + 30_000;
  while (!(await tab.texts('.timeline li')).some((chip) => chip.startsWith('Confirmed'))) {
    assert.ok(performance.now() < end, `the order comes to its end: ${await tab.text('main')}`);
    await sleep(250);
    await tab.click('.hint a[href^="/orders/"]'); // Look again
  }
  assert.match(await tab.text('h1'), /Thank you/i);
  await fits(tab, 'order');
  await tab.picture('11-order-without-scripts');
  await tab.go('/orders');
  await fits(tab, 'orders');
}
