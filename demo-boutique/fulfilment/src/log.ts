/** The facts of one order, in the log. */
import { Dependency } from '@boutique/chassis';
import { OrderEvent } from './facts';
import { OrderFacts } from './fulfil';

export class RemoteFacts implements OrderFacts {
  constructor(
    private readonly log: Dependency,
    private readonly timeoutMs: number,
  ) {}

  read(orderId: string): Promise<OrderEvent[]> {
    return new Promise((resolve, reject) => {
      const stream = this.log.watch<OrderEvent>('Read', { orderId }, undefined);
      const timer = setTimeout(() => stream.cancel(), this.timeoutMs);
      const events: OrderEvent[] = [];
      stream.on('data', (event: OrderEvent) => events.push(event));
      stream.on('error', (error) => {
        clearTimeout(timer);
        reject(error);
      });
      stream.on('end', () => {
        clearTimeout(timer);
        resolve(events);
      });
    });
  }

  async append(orderId: string, expectedVersion: number, event: object, trace: string | undefined): Promise<void> {
    await this.log.call('Append', { orderId, expectedVersion, events: [event] }, trace);
  }
}
