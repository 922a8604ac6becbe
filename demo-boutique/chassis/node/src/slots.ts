import { status } from '@grpc/grpc-js';
import { Refusal } from './refusal';

/** Of those at work and in line, also for callers who left. */
export const WORK_MAX = 4096;

/**
 * A bounded number of workers; whoever finds none free waits in line, for as long as it takes.
 * There is no way to leave the line: see Faults. It has an end, and whoever comes then is refused.
 */
export class Slots {
  #busy = 0;
  readonly #line: (() => void)[] = [];

  /** @param limit workers there are; 0 is no limit. */
  constructor(private limit = 0) {}

  /** Occupies a worker while `work` runs. */
  async with(work: () => Promise<void>): Promise<void> {
    if (this.#busy + this.#line.length >= WORK_MAX) {
      throw new Refusal(status.RESOURCE_EXHAUSTED, `${WORK_MAX} calls wait for a slot already`);
    }
    if (!this.#free()) await new Promise<void>((turn) => this.#line.push(turn));
    else this.#busy++;
    try {
      await work();
    } finally {
      this.#busy--;
      this.#callUp();
    }
  }

  resize(limit: number): void {
    this.limit = limit;
    this.#callUp();
  }

  #free(): boolean {
    return this.limit === 0 || this.#busy < this.limit;
  }

  /** The worker is taken here and not when the caller wakes up, so nobody jumps the line. */
  #callUp(): void {
    while (this.#line.length > 0 && this.#free()) {
      this.#busy++;
      this.#line.shift()!();
    }
  }
}
