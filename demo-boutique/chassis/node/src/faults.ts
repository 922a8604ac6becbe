/**
 * Does to every call what the knobs say, before its handler runs:
 *
 *     freeze → latency → error → work
 *
 * Freeze and latency end when the caller gives up. Work does not: a worker does not see its
 * caller leave, and that is what makes an overloaded service waste its capacity.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { Knobs, NO_FAULTS, checked } from './knobs';
import { Refusal } from './refusal';
import { Slots } from './slots';

export class Faults {
  #knobs: Knobs = NO_FAULTS;
  readonly #slots = new Slots();
  /** Frozen calls, each to be woken when the knobs change. */
  readonly #frozen = new Set<() => void>();

  /** @param percent draws a number from 0 to 99, anew for every call. */
  constructor(
    knobs: Knobs = NO_FAULTS,
    private readonly percent = () => Math.floor(Math.random() * 100),
  ) {
    this.set(knobs);
  }

  get knobs(): Knobs {
    return this.#knobs;
  }

  /** Replaces all knobs at once, also for the calls that are frozen or in line now. */
  set(knobs: Knobs): void {
    this.#knobs = checked(knobs);
    this.#slots.resize(knobs.slots);
    for (const wake of this.#frozen) wake();
  }

  /** Holds, fails or delays one call as the knobs say. `gone` tells that its caller gave up. */
  async before(gone: AbortSignal): Promise<void> {
    while (this.#knobs.freeze) await this.#change(gone);
    const { latencyMs, errorPct, code, serviceMs } = this.#knobs;
    if (latencyMs > 0) await sleep(latencyMs, undefined, { signal: gone }).catch(refuseTheGone);
    if (this.percent() < errorPct) {
      throw new Refusal(code || status.UNAVAILABLE, 'chaos: this call was told to fail');
    }
    if (this.#knobs.slots > 0 || serviceMs > 0) {
      await this.#slots.with(() => sleep(this.#knobs.serviceMs));
    }
  }

  /** Resolves when the knobs change. */
  #change(gone: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (how: () => void) => () => {
        this.#frozen.delete(wake);
        gone.removeEventListener('abort', leave);
        how();
      };
      const wake = settle(resolve);
      const leave = settle(() => reject(cancelled()));
      if (gone.aborted) return leave();
      this.#frozen.add(wake);
      gone.addEventListener('abort', leave);
    });
  }
}

const cancelled = () => new Refusal(status.CANCELLED, 'the caller gave up');

function refuseTheGone(): never {
  throw cancelled();
}
