import { Dependency, serviceOf } from '@boutique/chassis';
import { ServiceError, status } from '@grpc/grpc-js';
import { Order } from '../facts';
import { Settings } from '../settings';

type Trace = string | undefined;

export class OrderView {
  readonly #calls: Dependency;

  constructor({ orderviewAddr, channelsPerDependency, timeoutMs }: Settings) {
    const definition = serviceOf('boutique/events/v1/orderview.proto', 'boutique.events.v1.OrderView');
    this.#calls = new Dependency(definition, orderviewAddr, channelsPerDependency, timeoutMs);
  }

  /** Without an order when there is none yet, as of that fact; the view may be behind the log. */
  async get(orderId: string, trace: Trace): Promise<{ order: Order | undefined; asOfSeq: number | undefined }> {
    try {
      return await this.#calls.call<{ order: Order; asOfSeq: number }>('GetOrder', { orderId }, trace);
    } catch (error) {
      const { code, details } = error as ServiceError;
      if (code !== status.NOT_FOUND) throw error;
      const seq = /as of seq (\d+)/.exec(details)?.[1];
      return { order: undefined, asOfSeq: seq === undefined ? undefined : Number(seq) };
    }
  }

  /** The latest of this user, and the seq that they include. */
  list(userId: string, limit: number, trace: Trace): Promise<{ orders: Order[]; asOfSeq: number }> {
    return this.#calls.call('ListOrders', { userId, limit }, trace);
  }

  close(): void {
    this.#calls.close();
  }
}
