/** What the strip makes of a sidecar that is there, that is not, and of what is none. */
import assert from 'node:assert/strict';
import { createServer, RequestListener, Server } from 'node:http';
import { AddressInfo } from 'node:net';
import { afterEach, test } from 'node:test';
import { Known, reportOf, Sidecar } from './sidecar';
import { isMeant } from './strip';

/** For a sidecar that answers, on a machine that may stand still. */
const PATIENT_MS = 5_000;
const servers: Server[] = [];

async function listening(answer: RequestListener): Promise<string> {
  const server = createServer(answer);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.close();
    server.closeAllConnections();
  }
});

const STATE = {
  services: {
    'boutique/catalog:3550': {
      inFlight: 3,
      inFlightMax: 1024,
      p99Ms: 12.5,
      fallbacks: 4,
      breakers: { search: 'forced open', '': 'closed' },
      endpoints: [{ state: 'closed' }, { state: 'open' }, { state: 'ramping' }],
    },
    'boutique/cart:7070': { inFlight: 0, inFlightMax: 8, p99Ms: 0, breakers: {}, endpoints: [] },
  },
};
const NOTHING = JSON.stringify({ services: {} });

test('the worst breaker of a service, its latency, calls in flight and endpoints that take calls', () => {
  const report = reportOf(JSON.stringify(STATE)) as Map<string, object>;
  const catalog = { breaker: 'open', isForced: true, p99Ms: 12.5, inFlight: 3, inFlightMax: 1024, endpoints: 3, endpointsUp: 2, fallbacks: 4, isFallingBack: false };
  assert.deepEqual(report.get('boutique/catalog:3550'), catalog);
  const cart = { breaker: 'none', isForced: false, p99Ms: undefined, inFlight: 0, inFlightMax: 8, endpoints: 0, endpointsUp: 0, fallbacks: 0, isFallingBack: false };
  assert.deepEqual(report.get('boutique/cart:7070'), cart);
});

test('what makes no sense is no report', () => {
  const { inFlightMax: _, ...older } = STATE.services['boutique/cart:7070'];
  for (const text of ['', '<html>', '{}', '{"services":{"a/b:1":{}}}', JSON.stringify({ services: { 'a/b:1': older } })]) {
    assert.equal(reportOf(text), 'silent', text);
  }
});

test('however many look, a sidecar is asked once a second', async (context) => {
  context.mock.timers.enable({ apis: ['Date'], now: Date.now() });
  let asked = 0;
  const sidecar = new Sidecar(await listening((request, response) => {
    asked += Number(request.url === '/state');
    response.end(NOTHING);
  }), PATIENT_MS);
  await Promise.all(Array.from({ length: 20 }, () => sidecar.report()));
  await sidecar.report();
  assert.equal(asked, 1);
  context.mock.timers.tick(1_050); // its second is over
  await sidecar.report();
  assert.equal(asked, 2);
});

test('fallbacks that have become more since the sidecar was last heard are of now, and those of before are not', async () => {
  const state = structuredClone(STATE);
  const catalog = state.services['boutique/catalog:3550'];
  const sidecar = new Sidecar(await listening((_, response) => response.end(JSON.stringify(state))), PATIENT_MS);
  const isFallingBack = async () => ((await sidecar.report()) as ReadonlyMap<string, Known>).get('boutique/catalog:3550')!.isFallingBack;
  const aSecond = () => new Promise((resolve) => setTimeout(resolve, 1_050));
  assert.equal(await isFallingBack(), false, 'nobody knows when those were');
  catalog.fallbacks++;
  await aSecond();
  assert.equal(await isFallingBack(), true);
  await aSecond();
  assert.equal(await isFallingBack(), true, 'a moment later, too');
});

test('a sidecar that is not there, hangs, fails or never ends costs a moment and is told apart', async () => {
  const closed = await listening(() => undefined);
  await new Promise((resolve) => servers.pop()!.close(resolve));
  assert.equal(await new Sidecar(closed, PATIENT_MS).report(), 'absent');

  const answers: [RequestListener, number][] = [
    [() => undefined, 300],
    [(_, response) => response.writeHead(403).end(), PATIENT_MS],
    [(_, response) => response.end(NOTHING + ' '.repeat(600 * 1024)), PATIENT_MS],
    [(_, response) => void response.write('{"services":'), 300],
    [(_, response) => void response.socket!.destroy(), PATIENT_MS],
  ];
  for (const [answer, timeoutMs] of answers) {
    const began = performance.now();
    assert.equal(await new Sidecar(await listening(answer), timeoutMs).report(), 'silent');
    assert.ok(performance.now() - began < PATIENT_MS);
  }
});

test('an address means the service of that name and port, in its namespace if it says one', () => {
  assert.ok(isMeant('cart:7070', 'boutique/cart:7070'));
  assert.ok(isMeant('cart.boutique.svc:7070', 'boutique/cart:7070'));
  for (const other of ['cart.other:7070', 'cart:7071', 'art:7070']) assert.ok(!isMeant(other, 'boutique/cart:7070'), other);
});
