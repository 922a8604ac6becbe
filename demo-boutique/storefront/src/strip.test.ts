/** The strip on the page and in JSON: with a sidecar, without, and with services that are not well. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { NO_FAULTS } from '@boutique/chassis';
import { Front } from './front';
import { Neighbours, open } from './neighbours';
import { Settings } from './settings';
import { Visit } from './visit';

const DOWN = { ...NO_FAULTS, errorPct: 100 };
const neighbours = new Neighbours();
let settings: Settings;
let isHung = false;
let fallbacks = 0;

/** Speaks as a sidecar whose breaker to the catalog is half-open. */
const sidecar = createServer((_, response) => {
  if (isHung) return;
  const known = { inFlight: 2, inFlightMax: 64, p99Ms: 7.25, fallbacks, breakers: { '': 'half-open' }, endpoints: [{ state: 'closed' }] };
  response.end(JSON.stringify({ services: { [`boutique/localhost:${settings.catalogAddr.split(':')[1]}`]: known } }));
});

before(async () => {
  settings = await neighbours.start();
  await new Promise<void>((resolve) => sidecar.listen(0, '127.0.0.1', resolve));
  const catalogAddr = settings.catalogAddr.replace('127.0.0.1', 'localhost');
  const sidecarAddr = `127.0.0.1:${(sidecar.address() as AddressInfo).port}`;
  // On a machine that may stand still.
  settings = { ...settings, catalogAddr, sidecarAddr, sidecarTimeoutMs: 5_000 };
});

after(() => {
  neighbours.stop();
  sidecar.close();
  sidecar.closeAllConnections();
});

/** A storefront of its own, for as long as `use` takes. */
async function storefront(over: Partial<Settings>, use: (at: string, front: Front) => Promise<void>): Promise<void> {
  const [front, port] = await open({ ...settings, ...over });
  try {
    await use(`http://127.0.0.1:${port}`, front);
  } finally {
    await front.drain(100);
  }
}

interface Dependency {
  readonly name: string;
  readonly source: string;
  readonly breaker: string;
}

async function mesh(at: string): Promise<{ sidecar: string; of: Map<string, Dependency> }> {
  const { sidecar, dependencies } = (await (await fetch(`${at}/api/mesh`)).json()) as { sidecar: string; dependencies: Dependency[] };
  return { sidecar, of: new Map(dependencies.map((each) => [each.name, each])) };
}

/** The tile as it is in the page. */
function tile(page: string, name: string): string {
  return new RegExp(`<li data-dependency="${name}"[^]*?</li>`).exec(page)![0];
}

test('the page has a tile for each service, and the same is told in JSON', async () => {
  await storefront({}, async (at) => {
    const { sidecar, of } = await mesh(at);
    assert.deepEqual([sidecar, of.size, of.get('catalog')!.source], ['there', 8, 'idle']);
    const known = { breaker: 'half-open', isForced: false, p99Ms: 7.25, inFlight: 2, inFlightMax: 64, endpoints: 1, endpointsUp: 1, fallbacks: 0, isFallingBack: false };
    const words = { breaker: 'Half-open', p99: '7.3 ms', flight: '2 / 64', endpoints: '1 up', source: 'not asked' };
    assert.deepEqual(of.get('catalog'), { name: 'catalog', source: 'idle', ...known, words });
    assert.equal(of.get('ads')!.breaker, 'unknown');

    const page = await (await fetch(at)).text();
    const catalog = tile(page, 'catalog');
    assert.match(catalog, /data-breaker="half-open" data-source="live"/);
    assert.match(catalog, />live<[^]*>Half-open<[^]*>1 up<[^]*>7\.3 ms<[^]*>2 \/ 64</);
    assert.match(tile(page, 'checkout'), /data-breaker="unknown" data-source="idle"[^]*>Not called</);
    assert.equal((await mesh(at)).of.get('catalog')!.source, 'live', 'the page was shown what the catalog said');
  });
});

test('without a sidecar the shop is open and the strip says so in a line', async () => {
  await storefront({ sidecarAddr: '127.0.0.1:9' }, async (at) => {
    assert.equal((await mesh(at)).sidecar, 'absent');
    const page = await fetch(at);
    assert.deepEqual([page.status, page.headers.get('boutique-degraded')], [200, null]);
    assert.match(await page.text(), /data-sidecar="absent"[^]*No sidecar stands beside this shop/);
  });
});

test('a sidecar that hangs costs no page a moment', async () => {
  isHung = true;
  try {
    // A page that waited for it would know that it is silent. One that was slow for reasons of its own knows that, too.
    let sidecar: string | undefined;
    for (let tries = 0; tries < 5 && sidecar !== 'unasked'; tries++) {
      await storefront({ sidecarTimeoutMs: 300 }, async (at) => {
        const page = await (await fetch(at)).text();
        sidecar = /data-sidecar="(\w+)"/.exec(page)![1];
        assert.equal((await mesh(at)).sidecar, 'silent');
      });
    }
    assert.equal(sidecar, 'unasked');
  } finally {
    isHung = false;
  }
});

test('a tile says whether what is shown is live, as of a while ago, in its place, or nothing', async () => {
  await storefront({}, async (at) => {
    const source = async (path: string, name: string) =>
      / data-source="(\w+)"/.exec(tile(await (await fetch(`${at}${path}`)).text(), name))![1];
    assert.equal(await source('/product/mug', 'recommendation'), 'live');
    assert.equal(await source('/product/mug', 'currency'), 'live');
    neighbours.recommendation.set(DOWN);
    neighbours.currency.set(DOWN);
    neighbours.cart.set(DOWN);
    try {
      assert.equal(await source('/product/mug', 'recommendation'), 'fallback');
      assert.equal(await source('/product/mug', 'currency'), 'cached');
      assert.equal(await source('/product/stool', 'currency'), 'fallback', 'its price was never asked for');
      assert.equal(await source('/cart', 'cart'), 'missing');
      assert.equal((await mesh(at)).of.get('recommendation')!.source, 'fallback');
    } finally {
      for (const each of [neighbours.recommendation, neighbours.currency, neighbours.cart]) each.set(NO_FAULTS);
    }
  });
});

test('what the mesh answered in place of a service is marked as made by the mesh, and what the shop itself put there is not', async () => {
  await storefront({}, async (at) => {
    const catalog = async () => tile(await (await fetch(at)).text(), 'catalog');
    await mesh(at);
    assert.match(await catalog(), /data-source="live"/);
    fallbacks++;
    for (const end = Date.now() + 5_000; (await mesh(at)).of.get('catalog')!.source !== 'mesh'; ) {
      assert.ok(Date.now() < end, 'the strip hears of it within a second');
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.match(await catalog(), /data-source="mesh"[^]*>fallback by the mesh</);
    neighbours.catalog.set(DOWN);
    try {
      assert.match(await catalog(), /data-source="missing"/);
    } finally {
      neighbours.catalog.set(NO_FAULTS);
    }
  });
});

test('with currency down, prices are as of when it was last heard, and the page says when that was', async () => {
  await storefront({}, async (at) => {
    const began = Date.now();
    await fetch(at);
    neighbours.currency.set(DOWN);
    try {
      const home = await fetch(at);
      const page = await home.text();
      assert.deepEqual([home.status, home.headers.get('boutique-degraded')], [200, 'currency']);
      assert.match(page, /€20\.00[^]*€110\.00/);
      const then = Date.parse(/prices are as of <time datetime="([^"]+)"/.exec(page)![1]!);
      assert.ok(then >= began && then <= Date.now(), `${then}`);
      const { pricesAsOf, degraded } = (await (await fetch(`${at}/api/products`)).json()) as { pricesAsOf: string; degraded: string[] };
      assert.deepEqual([Date.parse(pricesAsOf), degraded], [then, ['currency']]);
    } finally {
      neighbours.currency.set(NO_FAULTS);
    }
  });
});

test('of several answers of a service, the one that a visitor notices counts', () => {
  const visit = new Visit('ann', 'EUR', undefined, false);
  for (const source of ['live', 'fallback', 'cached', 'live'] as const) visit.saw('currency', source);
  assert.equal(visit.shown.get('currency'), 'cached');
});
