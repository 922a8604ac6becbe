import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boutiqueService, chaosServer, drained, Faults, Health, listen, LOOPBACK, NO_FAULTS } from '@boutique/chassis';
import { Client, credentials, Server, ServiceDefinition, status } from '@grpc/grpc-js';
import { addCurrency, NAME } from './service';

const faults = new Faults();
const health = new Health([NAME]);
const server = new Server();
const knobs = chaosServer(faults);
let api: Client;
let chaos: Client;

before(async () => {
  addCurrency(server, faults);
  server.addService(health.definition, health.handlers);
  api = new Client(`127.0.0.1:${await listen(server, LOOPBACK, 0)}`, credentials.createInsecure());
  chaos = new Client(`127.0.0.1:${await listen(knobs, LOOPBACK, 0)}`, credentials.createInsecure());
});

after(() => {
  api.close();
  chaos.close();
  server.forceShutdown();
  knobs.forceShutdown();
});

function call(client: Client, service: ServiceDefinition, method: string, request: object, path?: string): Promise<any> {
  const definition = service[method]!;
  return new Promise((resolve, reject) =>
    client.makeUnaryRequest(
      path ?? definition.path,
      definition.requestSerialize,
      definition.responseDeserialize,
      request,
      { deadline: Date.now() + 5_000 },
      (error, response) => (error ? reject(error) : resolve(response)),
    ),
  );
}

/** Holds each call until the knobs say otherwise, and tells when the first is held. */
class Freezer extends Faults {
  #enter: () => void = () => undefined;
  readonly entered = new Promise<void>((resolve) => (this.#enter = resolve));

  constructor() {
    super({ ...NO_FAULTS, freeze: true });
  }

  override before(gone: AbortSignal): Promise<void> {
    this.#enter();
    return super.before(gone);
  }
}

const currency = boutiqueService('Currency');
const dollar = { currencyCode: 'USD', units: 1, nanos: 0 };

test('it converts one amount, or many in the order asked', async () => {
  const one = await call(api, currency, 'Convert', { from: dollar, toCode: 'EUR' });
  const many = await call(api, currency, 'ConvertBatch', { from: [dollar, { ...dollar, units: 2 }], toCode: 'EUR' });
  assert.equal(one.nanos, 921_319_329);
  assert.deepEqual(many.converted.map((money: { units: number }) => money.units), [0, 1]);
});

test('it answers under the names of Online Boutique too', async () => {
  const name = '/hipstershop.CurrencyService';
  const list = await call(api, currency, 'ListCurrencies', {}, `${name}/GetSupportedCurrencies`);
  const one = await call(api, currency, 'Convert', { from: dollar, toCode: 'USD' }, `${name}/Convert`);
  assert.ok(list.currencyCodes.includes('USD'));
  assert.equal(one.units, 1);
});

test('a batch with one unknown currency is refused as a whole', async () => {
  const from = [dollar, { ...dollar, currencyCode: 'XXX' }];
  await assert.rejects(call(api, currency, 'ConvertBatch', { from, toCode: 'EUR' }), { code: status.INVALID_ARGUMENT });
});

test('knobs set at runtime touch the api but not its health', async () => {
  const definition = boutiqueService('Chaos');
  const set = await call(chaos, definition, 'Set', { ...NO_FAULTS, errorPct: 100, code: status.INTERNAL });
  assert.equal(set.errorPct, 100);
  await assert.rejects(call(api, currency, 'ListCurrencies', {}), { code: status.INTERNAL });
  assert.deepEqual(await call(api, health.definition, 'Check', { service: NAME }), { status: 'SERVING' });
  await assert.rejects(call(chaos, definition, 'Set', { errorPct: 101 }), { code: status.INVALID_ARGUMENT });
  await call(chaos, definition, 'Set', {});
  await call(api, currency, 'ListCurrencies', {});
});

test('the knobs are not on the main port', async () => {
  await assert.rejects(call(api, boutiqueService('Chaos'), 'Set', {}), { code: status.UNIMPLEMENTED });
});

test('a drain tells the watchers, ends their streams, and finishes the call in flight', async () => {
  const own = new Server();
  const watched = new Health([NAME]);
  const frozen = new Freezer();
  addCurrency(own, frozen);
  own.addService(watched.definition, watched.handlers);
  const client = new Client(`127.0.0.1:${await listen(own, LOOPBACK, 0)}`, credentials.createInsecure());
  const { Watch } = watched.definition;
  const told: string[] = [];
  const watch = client.makeServerStreamRequest(Watch!.path, Watch!.requestSerialize, Watch!.responseDeserialize, { service: NAME });
  const watches = new Promise((resolve) => watch.once('data', resolve));
  const ended = new Promise((resolve) => watch.on('data', (now: any) => told.push(now.status)).on('end', resolve));
  const inFlight = call(client, currency, 'ListCurrencies', {});
  await Promise.all([watches, frozen.entered]);

  const start = performance.now();
  watched.drain();
  const drain = drained(own, 60_000);
  await ended;
  frozen.set(NO_FAULTS);
  await drain;
  assert.ok(performance.now() - start < 30_000, 'it waited for its grace');
  assert.deepEqual(told, ['SERVING', 'NOT_SERVING']);
  assert.ok((await inFlight).currencyCodes.length > 0);
  client.close();
});

test('whoever begins to watch while it drains is told so and let go: it would keep the drain waiting', async () => {
  const own = new Server();
  const watched = new Health([]);
  own.addService(watched.definition, watched.handlers);
  const client = new Client(`127.0.0.1:${await listen(own, LOOPBACK, 0)}`, credentials.createInsecure());
  const { Watch } = watched.definition;
  watched.drain();
  const told: string[] = [];
  const ended = new Promise<void>((resolve, reject) => {
    const late = { deadline: Date.now() + 5_000 };
    const stream = client.makeServerStreamRequest(Watch!.path, Watch!.requestSerialize, Watch!.responseDeserialize, { service: '' }, late);
    stream.on('data', (now: any) => told.push(now.status)).on('end', resolve).on('error', reject);
  });
  await ended;
  assert.deepEqual(told, ['NOT_SERVING']);
  client.close();
  await drained(own, 5_000);
});
