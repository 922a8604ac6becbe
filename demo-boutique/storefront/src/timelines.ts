/**
 * Timelines of orders, told to whoever looks at them.
 *
 *     Read(order) ──▶ what happened already ─┐
 *                                            ├──▶ each listener: in order, each fact once
 *     Subscribe ──▶ what happens to any ─────┘
 *
 * One subscription for all listeners, and none while there is no listener. It keeps no facts: what is for
 * nobody here is dropped, and what is for somebody is written at once.
 */
import { ClientReadableStream, status } from '@grpc/grpc-js';
import { OrderEvent, ownerOf, Step, stepOf } from './facts';

/** Where a timeline is written to. */
export interface Sink {
  /** False if it does not keep up; then it is dropped. */
  tell(step: Step): boolean;
  /** A sign of life; false as above. */
  ping(): boolean;
  end(): void;
  drop(): void;
}

/** boutique.events.v1.OrderLog, what is needed of it here. */
export interface Log {
  read(orderId: string, trace: string | undefined, gone?: AbortSignal): Promise<OrderEvent[]>;
  subscribe(fromSeq: number): Pick<ClientReadableStream<OrderEvent>, 'on' | 'cancel'>;
}

export interface Limits {
  readonly listenersMax: number;
  readonly pingMs: number;
  readonly pauseMs: number;
  readonly pauseMsMax: number;
}

const LIMITS: Limits = { listenersMax: 256, pingMs: 15_000, pauseMs: 100, pauseMsMax: 2_000 };
/** Facts that wait for what happened before them. An order has nine; beyond this the log is broken. */
const WAITING_MAX = 32;

/** Full: there are too many listeners. */
export type Opened = 'told' | 'unknown' | 'over' | 'full';

interface Listener {
  readonly orderId: string;
  /** Until what happened before is told, what happens meanwhile waits. */
  waiting: OrderEvent[] | undefined;
  sink: Sink | undefined;
  lastSeq: number;
}

export class Timelines {
  readonly #listeners = new Map<string, Set<Listener>>();
  #count = 0;
  /** The latest fact that is known here, of whichever order. */
  #seen = 0;
  /** The first fact that the subscription was to tell; undefined without one. */
  #startedAt: number | undefined;
  /** The first that it has not told. */
  #next = 0;
  #stream: ReturnType<Log['subscribe']> | undefined;
  #again: NodeJS.Timeout | undefined;
  #pings: NodeJS.Timeout | undefined;
  #pauseMs: number;

  constructor(
    private readonly log: Log,
    private readonly limits = LIMITS,
  ) {
    this.#pauseMs = limits.pauseMs;
  }

  get listeners(): number {
    return this.#count;
  }

  /** Whether the log is followed, or will be again in a moment. */
  get isFollowing(): boolean {
    return this.#startedAt !== undefined;
  }

  /**
   * Tells what happened to this user's order after `afterSeq` and what will, until it is over or `gone`.
   * `begin` is called once there is something to listen to. Rejects if the log cannot be read.
   */
  async open(
    orderId: string,
    userId: string,
    afterSeq: number,
    trace: string | undefined,
    gone: AbortSignal,
    begin: () => Sink,
  ): Promise<Opened> {
    if (this.#count >= this.limits.listenersMax) return 'full';
    const listener: Listener = { orderId, waiting: [], sink: undefined, lastSeq: afterSeq };
    // Whatever is known to be in the log before the order is read, will have been read.
    const readUpTo = this.#seen;
    this.#add(listener);
    const leave = () => this.#remove(listener);
    gone.addEventListener('abort', leave, { once: true });
    let stays = false;
    try {
      const events = await this.log.read(orderId, trace, gone).catch((error: unknown) => {
        if (gone.aborted) return []; // it was cut short for that
        throw error;
      });
      if (gone.aborted || ownerOf(events) !== userId) return 'unknown';
      const last = events.at(-1)!.seq;
      this.#seen = Math.max(this.#seen, last);
      const isOver = events.some((event) => stepOf(event)?.last);
      if (isOver && last <= afterSeq) return 'over';
      if (!isOver) this.#follow(Math.max(readUpTo, last) + 1);
      listener.sink = begin();
      const { waiting } = listener;
      listener.waiting = undefined;
      for (const event of [...events, ...waiting!]) this.#tell(listener, event);
      stays = true;
      return 'told';
    } finally {
      if (!stays) {
        gone.removeEventListener('abort', leave);
        leave();
      }
    }
  }

  #add(listener: Listener): void {
    const others = this.#listeners.get(listener.orderId);
    if (others) others.add(listener);
    else this.#listeners.set(listener.orderId, new Set([listener]));
    this.#count += 1;
    this.#pings ??= setInterval(() => this.#ping(), this.limits.pingMs).unref();
  }

  #remove(listener: Listener): void {
    const others = this.#listeners.get(listener.orderId);
    if (!others?.delete(listener)) return; // it left before
    if (others.size === 0) this.#listeners.delete(listener.orderId);
    this.#count -= 1;
    if (this.#count === 0) this.#rest();
  }

  /** From this fact on, unless the log is followed from there already. */
  #follow(from: number): void {
    if (this.#startedAt !== undefined && this.#startedAt <= from) return;
    if (this.#startedAt !== undefined) {
      // Another listener's order was younger. All comes again from there, so what waits would be in the way.
      this.#close();
      for (const listener of this.#all()) if (listener.waiting) listener.waiting = [];
    }
    this.#startedAt = from;
    this.#next = from;
    this.#subscribe();
  }

  #subscribe(): void {
    const stream = this.log.subscribe(this.#next);
    this.#stream = stream;
    const over = (why: string) => {
      if (this.#stream !== stream) return;
      this.#stream = undefined;
      if (this.#pauseMs === this.limits.pauseMs) console.log(`storefront: the facts stopped: ${why}`);
      this.#again = setTimeout(() => this.#subscribe(), this.#pauseMs).unref();
      this.#pauseMs = Math.min(2 * this.#pauseMs, this.limits.pauseMsMax);
    };
    stream.on('data', (event: OrderEvent) => {
      if (this.#stream !== stream) return;
      this.#pauseMs = this.limits.pauseMs;
      this.#next = event.seq + 1;
      this.#seen = Math.max(this.#seen, event.seq);
      for (const listener of [...(this.#listeners.get(event.orderId) ?? [])]) this.#tell(listener, event);
    });
    stream.on('error', (error: Error & { code?: status }) => {
      if (error.code === status.OUT_OF_RANGE && this.#stream === stream) this.#forget();
      over(error.message);
    });
    stream.on('end', () => over('the stream ended'));
  }

  #tell(listener: Listener, event: OrderEvent): void {
    if (listener.waiting) {
      if (listener.waiting.length < WAITING_MAX) listener.waiting.push(event);
      return;
    }
    const step = stepOf(event);
    if (!step || event.seq <= listener.lastSeq) return;
    listener.lastSeq = event.seq;
    const { sink } = listener;
    if (!sink) return; // it has heard the end
    if (!sink.tell(step)) return this.#drop(listener);
    if (!step.last) return;
    listener.sink = undefined;
    this.#remove(listener);
    sink.end();
  }

  #ping(): void {
    for (const listener of this.#all()) {
      if (listener.sink && !listener.sink.ping()) this.#drop(listener);
    }
  }

  /** The log is another one now: whoever listens may ask again what that one knows. */
  #forget(): void {
    console.log('storefront: the log of facts is another one now');
    this.#seen = 0;
    for (const listener of this.#all()) if (listener.sink) this.#drop(listener);
  }

  #drop(listener: Listener): void {
    const { sink } = listener;
    listener.sink = undefined;
    this.#remove(listener);
    sink?.drop();
  }

  #all(): Listener[] {
    return [...this.#listeners.values()].flatMap((some) => [...some]);
  }

  /** Nobody listens. */
  #rest(): void {
    this.#close();
    this.#startedAt = undefined;
    this.#pauseMs = this.limits.pauseMs;
    clearInterval(this.#pings);
    this.#pings = undefined;
  }

  #close(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    clearTimeout(this.#again);
    this.#again = undefined;
    stream?.cancel();
  }
}
