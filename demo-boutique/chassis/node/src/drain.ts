/** The end of a service: the first signal asks for it, the second insists. */
import { Server } from '@grpc/grpc-js';

/** Resolves at the first SIGTERM or SIGINT; from then on another one ends the process at once. */
export function signalled(): Promise<void> {
  return new Promise((resolve) => {
    let asked = false;
    const onSignal = () => {
      if (asked) process.exit(1);
      asked = true;
      resolve();
    };
    process.on('SIGTERM', onSignal).on('SIGINT', onSignal);
  });
}

/** Accepts nothing more and finishes what runs; cuts what is left when the grace is over. */
export async function drained(server: Server, graceMs: number): Promise<void> {
  await within(graceMs, new Promise<void>((resolve) => server.tryShutdown(() => resolve())));
  server.forceShutdown();
}

/** Waits for `work`, but no longer than this. */
export async function within(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise((resolve) => (timer = setTimeout(resolve, ms)));
  await Promise.race([work, late]);
  clearTimeout(timer);
}
