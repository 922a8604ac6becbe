/** What visitors of the shop go through, when all is well and when it is not. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { accessible, fits, NARROW, reachable } from './accessible';
import { freeze, tell, thaw } from './stage';
import { Tab } from './tab';

const PRODUCT = '/product/storm-lantern';
const CHIPS = ['Placed', 'Paid', 'Shipped', 'Confirmed'];

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
  await accessible(tab, 'home');
  tell(`home: ${await reachable(tab)} places, all reached by keyboard`);

  await tab.go('/search?q=wool');
  await accessible(tab, 'search');
  await tab.resize(NARROW, 640);
  for (const page of [PRODUCT, '/search?q=wool', '/cart', '/']) {
    await tab.go(page);
    await fits(tab, page);
  }
  await tab.picture('2-home-narrow', true);
  await accessible(tab, 'home, narrow');
  await tab.resize(1280, 860);
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
    await accessible(tab, page);
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
  await accessible(tab, 'order');

  await tab.go('/orders');
  await accessible(tab, 'orders');
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
  await accessible(tab, 'product without recommendations');

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
  await accessible(tab, 'home with prices of a while ago');
  await thaw('currency');
  await thaw('ads');
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
