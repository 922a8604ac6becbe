/**
 * Takes placed orders from the log, only as many at once as it works on: credit is given back when an
 * order has ended, and that is acknowledged. Where it goes on after a crash is the last acknowledgement,
 * which the log remembers; an order that was under way then is taken up again.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Dependency } from '@boutique/chassis';
import { ClientDuplexStream } from '@grpc/grpc-js';
import { OrderEvent } from './facts';
import { Watermark } from './watermark';

type Said = { open: { consumer: string; types: string[] } } | { requestN: number } | { ack: number };

const CONSUMER = 'fulfilment';
const PAUSE_MS = 100;
const PAUSE_MS_MAX = 2_000;

export class Subscriber {
  /** Orders under way, also those of streams that are over: none is worked on twice at once. */
  readonly #underWay = new Map<string, Promise<void>>();
  #pauseMs = PAUSE_MS;

  constructor(
    private readonly log: Dependency,
    private readonly ordersMax: number,
    private readonly fulfil: (orderId: string) => Promise<void>,
    private readonly stopped: AbortSignal,
  ) {}

  /** Until it is stopped; a stream that is lost is opened again. */
  async run(): Promise<void> {
    while (!this.stopped.aborted) {
      const why = await this.#stream();
      if (this.stopped.aborted) break;
      console.error(`fulfilment: ${why}; the log again in ${this.#pauseMs} ms`);
      await sleep(this.#pauseMs, undefined, { signal: this.stopped }).catch(() => undefined);
      this.#pauseMs = Math.min(2 * this.#pauseMs, PAUSE_MS_MAX);
    }
    await Promise.allSettled(this.#underWay.values());
  }

  /** Resolves with why it ended. */
  #stream(): Promise<string> {
    return new Promise((resolve) => {
      const stream = this.log.converse<Said, OrderEvent>('SubscribeAcked');
      const watermark = new Watermark();
      const cancel = () => stream.cancel();
      this.stopped.addEventListener('abort', cancel, { once: true });
      let open = true;
      const over = (why: string) => {
        open = false;
        this.stopped.removeEventListener('abort', cancel);
        resolve(why);
      };
      stream.on('data', (event: OrderEvent) => {
        this.#pauseMs = PAUSE_MS;
        watermark.begin(event.seq);
        void this.#once(event.orderId).then(() => {
          // Else it is delivered again, on the next stream.
          if (open && !this.stopped.aborted) this.#finished(event.seq, watermark, stream);
        });
      });
      stream.on('error', (error) => over(error.message));
      stream.on('end', () => over('the stream ended'));
      stream.write({ open: { consumer: CONSUMER, types: ['ORDER_PLACED'] } });
      stream.write({ requestN: this.ordersMax });
    });
  }

  #once(orderId: string): Promise<void> {
    const known = this.#underWay.get(orderId);
    if (known) return known;
    const work = this.fulfil(orderId).finally(() => this.#underWay.delete(orderId));
    this.#underWay.set(orderId, work);
    return work;
  }

  #finished(seq: number, watermark: Watermark, stream: ClientDuplexStream<Said, OrderEvent>): void {
    const ack = watermark.finish(seq);
    if (ack !== undefined) stream.write({ ack });
    stream.write({ requestN: 1 });
  }
}
