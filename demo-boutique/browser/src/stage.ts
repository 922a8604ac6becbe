/** Whoever started this test runs the shop: asked in a line on stdout, done when a line comes back. */
import { createInterface } from 'node:readline';

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function ask(verb: string, service: string): Promise<void> {
  console.log(`ask: ${verb} ${service}`);
  const { value, done } = await lines.next();
  if (done || value !== 'done') throw new Error(`${verb} ${service}: ${value}`);
}

/** Its pod stops where it is and says nothing more, until it thaws. */
export const freeze = (service: string): Promise<void> => ask('freeze', service);
export const thaw = (service: string): Promise<void> => ask('thaw', service);

/** Its sidecar does what it did, and says nothing of it to its app any more, until it is to be heard again. */
export const mute = (service: string): Promise<void> => ask('mute', service);
export const unmute = (service: string): Promise<void> => ask('unmute', service);

export function tell(what: string): void {
  console.log(`  ${what}`);
}
