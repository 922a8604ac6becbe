import { Dependency, serviceOf } from '@boutique/chassis';
import { ClientReadableStream } from '@grpc/grpc-js';
import { OrderEvent } from '../facts';
import { Settings } from '../settings';

/** An order has nine facts at most; more would be something else. */
const FACTS_MAX = 32;

/** What can change an order on a page. Not the placing itself: that one has a card in it, and is read where it is needed. */
const NEWS = [
  'PAYMENT_AUTHORIZED',
  'PAYMENT_DECLINED',
  'PAYMENT_REFUNDED',
  'ORDER_SHIPPED',
  'SHIPMENT_FAILED',
  'ORDER_CONFIRMED',
  'ORDER_CANCELLED',
];

export class OrderLog {
  readonly #calls: Dependency;
  readonly #timeoutMs: number;

  constructor({ orderlogAddr, channelsPerDependency, timeoutMs }: Settings) {
    const definition = serviceOf('boutique/events/v1/orderlog.proto', 'boutique.events.v1.OrderLog');
    this.#calls = new Dependency(definition, orderlogAddr, channelsPerDependency, timeoutMs);
    this.#timeoutMs = timeoutMs;
  }

  /** What the log has of one order now; none, if there is no such order. */
  read(orderId: string, trace: string | undefined, gone?: AbortSignal): Promise<OrderEvent[]> {
    return new Promise((resolve, reject) => {
      const stream = this.#calls.watch<OrderEvent>('Read', { orderId, limit: FACTS_MAX }, trace);
      const events: OrderEvent[] = [];
      const cancel = () => stream.cancel();
      const timer = setTimeout(cancel, this.#timeoutMs);
      gone?.addEventListener('abort', cancel, { once: true });
      const over = (settle: () => void) => {
        clearTimeout(timer);
        gone?.removeEventListener('abort', cancel);
        settle();
      };
      stream.on('data', (event: OrderEvent) => events.push(event));
      stream.on('error', (error) => over(() => reject(error)));
      stream.on('end', () => over(() => resolve(events)));
      if (gone?.aborted) cancel();
    });
  }

  /** What happens to all orders from a place on. It is nobody's request, and has no trace. */
  subscribe(fromSeq: number): ClientReadableStream<OrderEvent> {
    return this.#calls.watch('Subscribe', { fromSeq, types: NEWS }, undefined);
  }

  close(): void {
    this.#calls.close();
  }
}
