/** Fulfilment takes every placed order to its end: paid for and shipped, or cancelled and paid back. */
import { boutiqueService, chaosServer, Dependency, drained, env, EVERYWHERE, Faults, Health, knobsFrom, listen, LOOPBACK, serviceOf, signalled, within } from '@boutique/chassis';
import { Server } from '@grpc/grpc-js';
import { fulfil } from './fulfil';
import { RemoteFacts } from './log';
import { Steps } from './steps';
import { Subscriber } from './subscriber';

async function main(): Promise<void> {
  const { env: variables } = process;
  const faults = new Faults(knobsFrom(variables));
  const chaosPort = env.integer(variables, 'CHAOS_PORT', 9732);
  const graceMs = env.integer(variables, 'DRAIN_SECONDS', 10) * 1000;
  const timeoutMs = env.integer(variables, 'GRPC_TIMEOUT_MS', 2_000);
  const ordersMax = Math.max(1, env.integer(variables, 'ORDERS_MAX', 32));
  const shipTries = env.integer(variables, 'SHIP_TRIES', 30);
  const channels = Math.max(1, env.integer(variables, 'CHANNELS_PER_DEPENDENCY', 1));

  const to = (service: ReturnType<typeof serviceOf>, name: string, fallback: string) =>
    new Dependency(service, env.text(variables, name, fallback), channels, timeoutMs);
  const logService = serviceOf('boutique/events/v1/orderlog.proto', 'boutique.events.v1.OrderLog');
  const log = to(logService, 'ORDERLOG_SERVICE_ADDR', '127.0.0.1:7300');
  const payment = to(boutiqueService('Payment'), 'PAYMENT_SERVICE_ADDR', '127.0.0.1:50051');
  const shipping = to(boutiqueService('Shipping'), 'SHIPPING_SERVICE_ADDR', '127.0.0.1:50052');

  const server = new Server();
  const health = new Health([]);
  server.addService(health.definition, health.handlers);
  if (chaosPort !== 0) await listen(chaosServer(faults), LOOPBACK, chaosPort);
  const port = await listen(server, EVERYWHERE, env.integer(variables, 'PORT', 7320));
  console.log(`fulfilment: health on :${port}, knobs on 127.0.0.1:${chaosPort}`);

  const stop = new AbortController();
  const facts = new RemoteFacts(log, timeoutMs);
  const steps = new Steps(payment, shipping, shipTries);
  const subscriber = new Subscriber(log, ordersMax, (orderId) => fulfil(orderId, facts, steps, faults, stop.signal), stop.signal);
  const working = subscriber.run();

  await signalled();
  console.log('fulfilment: draining');
  health.drain();
  stop.abort();
  await within(graceMs, working);
  await drained(server, graceMs);
}

main().then(
  () => process.exit(0),
  (error: Error) => {
    console.error(`fulfilment: ${error.message}`);
    process.exit(1);
  },
);
