/** Turns the knobs of a running service from the command line: see demo-boutique/knobs. */
import { Client, credentials } from '@grpc/grpc-js';
import { Knobs, NO_FAULTS } from './knobs';
import { boutiqueService } from './proto';

const USAGE = `usage: chaos HOST:PORT [latency_ms=N] [error_pct=N] [code=N] [slots=N] [service_ms=N] [freeze=true]
Sets all knobs at once: what is not named is off. The answer is what is now in force.`;

function knobsIn(words: string[]): Knobs {
  const knobs: Record<string, number | boolean> = { ...NO_FAULTS };
  for (const word of words) {
    const [, name = '', value = ''] = /^(\w+)=(\d+|true|false)$/.exec(word) ?? [];
    const key = name.replace(/_[a-z]/g, (letter) => letter[1]!.toUpperCase());
    if (!(key in knobs) || (key === 'freeze') === /\d/.test(value)) throw new Error(`"${word}" is no knob\n${USAGE}`);
    knobs[key] = key === 'freeze' ? value === 'true' : Number(value);
  }
  return knobs as unknown as Knobs;
}

function main([address, ...words]: string[]): void {
  if (!address || !/:\d+$/.test(address)) throw new Error(USAGE);
  const { path, requestSerialize, responseDeserialize } = boutiqueService('Chaos')['Set']!;
  const client = new Client(address, credentials.createInsecure(), { 'grpc.enable_http_proxy': 0 });
  const deadline = { deadline: Date.now() + 5_000 };
  client.makeUnaryRequest(path, requestSerialize, responseDeserialize, knobsIn(words), deadline, (error, inForce) => {
    if (error) fail(new Error(`${address}: ${error.message}`));
    console.log(JSON.stringify(inForce));
    client.close();
  });
}

function fail(error: Error): never {
  console.error(error.message);
  process.exit(1);
}

try {
  main(process.argv.slice(2));
} catch (error) {
  fail(error as Error);
}
