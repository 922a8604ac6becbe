/** The knobs of `boutique.v1.Chaos`, as a value. */
import { status } from '@grpc/grpc-js';
import { Environment, integer } from './env';
import { Refusal } from './refusal';

export interface Knobs {
  readonly latencyMs: number;
  readonly errorPct: number;
  /** A gRPC status; 0 stands for UNAVAILABLE. */
  readonly code: number;
  readonly slots: number;
  readonly serviceMs: number;
  readonly freeze: boolean;
}

export const NO_FAULTS: Knobs = { latencyMs: 0, errorPct: 0, code: 0, slots: 0, serviceMs: 0, freeze: false };

const HOUR_MS = 3_600_000;
const MOST: Record<string, number> = {
  latencyMs: HOUR_MS,
  errorPct: 100,
  code: status.UNAUTHENTICATED,
  slots: 1 << 20,
  serviceMs: HOUR_MS,
};

/** The same knobs, or a refusal that names the one that makes no sense. */
export function checked(knobs: Knobs): Knobs {
  for (const [name, most] of Object.entries(MOST)) {
    const value = knobs[name as keyof Knobs] as number;
    if (value < 0 || value > most) {
      throw new Refusal(status.INVALID_ARGUMENT, `${name} is ${value}, it has to be between 0 and ${most}`);
    }
  }
  return knobs;
}

/** The knobs to start with. */
export function knobsFrom(env: Environment): Knobs {
  return checked({
    latencyMs: integer(env, 'LATENCY_MS', 0),
    errorPct: integer(env, 'ERROR_PCT', 0),
    code: code(env['ERROR_CODE']),
    slots: integer(env, 'SLOTS', 0),
    serviceMs: integer(env, 'SERVICE_MS', 0),
    freeze: false,
  });
}

/** By name (UNAVAILABLE) or by number (14). */
function code(text: string | undefined): number {
  if (!text) return 0;
  const number = /^\d+$/.test(text) ? Number(text) : status[text as keyof typeof status];
  if (number === undefined || status[number] === undefined) {
    throw new Error(`ERROR_CODE="${text}": expected a gRPC status like UNAVAILABLE or 14`);
  }
  return number;
}
