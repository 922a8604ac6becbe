/** Takes one order to its end: read its facts, decide, do, append the fact, and again. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Faults } from '@boutique/chassis';
import { ServiceError, status } from '@grpc/grpc-js';
import { Fact, OrderEvent } from './facts';
import { decide, fold, keyOf, Step } from './saga';

/** The log, as much of it as one order needs. */
export interface OrderFacts {
  read(orderId: string): Promise<OrderEvent[]>;
  append(orderId: string, expectedVersion: number, event: Partial<OrderEvent> & { causationId: string }, trace: string | undefined): Promise<void>;
}

export interface Doer {
  do(orderId: string, step: Exclude<Step, { does: 'nothing' }>, tries: number, trace: string | undefined): Promise<Fact>;
}

const PAUSE_MS = 50;
const PAUSE_MS_MAX = 2_000;

/**
 * Resolves when the order has ended. Whatever fails is tried again, with longer and longer pauses: an order
 * is late rather than lost. A crash at any point costs nothing but a step that is done a second time, to no effect.
 */
export async function fulfil(orderId: string, log: OrderFacts, steps: Doer, faults: Faults, stopped: AbortSignal): Promise<void> {
  let tries = { of: '', failed: 0 };
  let isOvertaken = false;
  for (let pauseMs = PAUSE_MS; !stopped.aborted; ) {
    try {
      const events = await log.read(orderId);
      const order = fold(events);
      const step = decide(order);
      if (step.does === 'nothing') return;
      if (tries.of !== step.does) tries = { of: step.does, failed: 0 };
      const trace = traceparentOf(events[0]!.traceId);
      await faults.before(stopped);
      const fact = await steps.do(orderId, step, tries.failed, trace).catch((error) => {
        tries.failed++; // that the log cannot be reached is not the step's fault
        throw error;
      });
      await log.append(orderId, order.version, { idempotencyKey: keyOf(step), causationId: String(order.lastSeq), ...fact }, trace);
      pauseMs = PAUSE_MS;
      isOvertaken = false;
    } catch (error) {
      // Others have appended meanwhile: read what, and think again. Not for ever: whoever says nothing else is broken.
      if ((error as ServiceError).code === status.ABORTED && !isOvertaken) {
        isOvertaken = true;
        continue;
      }
      console.error(`fulfilment: ${orderId}: ${tries.of}: ${(error as Error).message}; again in ${pauseMs} ms`);
      await sleep(pauseMs, undefined, { signal: stopped }).catch(() => undefined);
      pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX);
    }
  }
}

/** The order's trace goes on in what is done for it; the span is a new one, as the old one is over. */
function traceparentOf(traceId: string): string | undefined {
  if (!/^[0-9a-f]{32}$/.test(traceId)) return undefined;
  const span = Array.from({ length: 16 }, () => Math.floor(Math.random() * 16).toString(16)).join('');
  return `00-${traceId}-${span}-01`;
}
