/** Currency converts money. The storefront asks it once a product, which makes it an amplifier of latency. */
import { chaosServer, drained, env, EVERYWHERE, Faults, Health, knobsFrom, listen, LOOPBACK, signalled } from '@boutique/chassis';
import { Server } from '@grpc/grpc-js';
import { addCurrency, NAME } from './service';

async function main(): Promise<void> {
  const faults = new Faults(knobsFrom(process.env));
  const chaosPort = env.integer(process.env, 'CHAOS_PORT', 9700);
  const graceMs = env.integer(process.env, 'DRAIN_SECONDS', 10) * 1000;

  const server = new Server();
  const health = new Health([NAME]);
  addCurrency(server, faults);
  server.addService(health.definition, health.handlers);
  if (chaosPort !== 0) await listen(chaosServer(faults), LOOPBACK, chaosPort);
  const port = await listen(server, EVERYWHERE, env.integer(process.env, 'PORT', 7000));
  console.log(`currency: serving on :${port}, knobs on 127.0.0.1:${chaosPort}`);

  await signalled();
  console.log('currency: draining');
  health.drain();
  await drained(server, graceMs);
}

main().then(
  () => process.exit(0),
  (error: Error) => {
    console.error(`currency: ${error.message}`);
    process.exit(1);
  },
);
