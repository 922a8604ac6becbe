/** What is done in the world for a step of an order, and which fact that makes. */
import { Dependency, Refusal } from '@boutique/chassis';
import { ServiceError, status } from '@grpc/grpc-js';
import { Fact } from './facts';
import { chargeKey, Step } from './saga';

/**
 * What the payment and the shipping themselves say when it makes no sense to ask again. Any other code may be the word
 * of somebody between: to be kept from asking for a while is no reason to cancel an order.
 */
const FINAL = new Set([status.INVALID_ARGUMENT, status.FAILED_PRECONDITION]);

/** Why a call failed for good; null when it is worth another try. */
export function finalWord(error: unknown): string | null {
  const { code, details } = error as ServiceError | Refusal;
  return FINAL.has(code) ? details : null;
}

export class Steps {
  /** @param shipTries how often shipping is asked before the order is given up; payment is asked for ever. */
  constructor(
    private readonly payment: Dependency,
    private readonly shipping: Dependency,
    private readonly shipTries: number,
  ) {}

  /**
   * Does it, once however often it is called. Rejects when it may be tried again.
   * @param tries of this step, for this order, that failed before.
   */
  async do(orderId: string, step: Exclude<Step, { does: 'nothing' }>, tries: number, trace: string | undefined): Promise<Fact> {
    switch (step.does) {
      case 'authorize':
        return this.#authorize(orderId, step, trace);
      case 'ship':
        return tries < this.shipTries ? this.#ship(orderId, step, trace) : this.#givenUp();
      case 'refund':
        // It may have been shipped without our knowing, also by whoever else worked on it.
        await this.shipping.call('Cancel', { orderId }, trace);
        return { paymentRefunded: { transactionId: await this.#refund(orderId, trace) } };
      case 'cancel':
        if (!step.isRefunded) await this.#refund(orderId, trace); // where nothing was charged, it forbids the charge
        return { orderCancelled: { reason: step.reason } };
      case 'confirm':
        return { orderConfirmed: {} };
    }
  }

  async #authorize(orderId: string, { placed }: Extract<Step, { does: 'authorize' }>, trace: string | undefined): Promise<Fact> {
    const request = { key: chargeKey(orderId), amount: placed.total, creditCard: placed.creditCard };
    try {
      const { transactionId } = await this.payment.call<{ transactionId: string }>('Authorize', request, trace);
      return { paymentAuthorized: { transactionId, amount: placed.total } };
    } catch (error) {
      const reason = finalWord(error);
      if (reason === null) throw error;
      return { paymentDeclined: { reason } };
    }
  }

  async #ship(orderId: string, { placed }: Extract<Step, { does: 'ship' }>, trace: string | undefined): Promise<Fact> {
    const request = { orderId, address: placed.address, items: placed.items };
    try {
      const { trackingId } = await this.shipping.call<{ trackingId: string }>('Ship', request, trace);
      return { orderShipped: { trackingId } };
    } catch (error) {
      const reason = finalWord(error);
      if (reason === null) throw error;
      return { shipmentFailed: { reason } };
    }
  }

  #givenUp(): Fact {
    return { shipmentFailed: { reason: `shipping could not be reached in ${this.shipTries} tries` } };
  }

  /** Which transaction; none where nothing was charged. */
  async #refund(orderId: string, trace: string | undefined): Promise<string> {
    try {
      const { transactionId } = await this.payment.call<{ transactionId: string }>('Refund', { key: chargeKey(orderId) }, trace);
      return transactionId;
    } catch (error) {
      // What payment takes for no key at all, it has charged nothing under.
      if ((error as ServiceError | Refusal).code !== status.INVALID_ARGUMENT) throw error;
      return '';
    }
  }
}
