/**
 * grpc.health.v1, with watchers whose streams end when the service drains: an open stream
 * would otherwise keep a graceful stop waiting.
 */
import { sendUnaryData, ServerUnaryCall, ServerWritableStream, status, UntypedServiceImplementation } from '@grpc/grpc-js';
import { protoPath } from 'grpc-health-check';
import { serviceOf } from './proto';
import { Refusal } from './refusal';

interface Asked {
  service: string;
}
interface Told {
  status: 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN';
}

export class Health {
  readonly definition = serviceOf(protoPath, 'grpc.health.v1.Health');
  readonly #watchers = new Set<ServerWritableStream<Asked, Told>>();
  #draining = false;

  /** @param services full names that have a health; "" is the process as a whole. */
  constructor(private readonly services: string[]) {}

  get handlers(): UntypedServiceImplementation {
    return {
      check: (call: ServerUnaryCall<Asked, Told>, callback: sendUnaryData<Told>) => {
        const told = this.#of(call.request.service);
        if (told.status !== 'SERVICE_UNKNOWN') return callback(null, told);
        callback(new Refusal(status.NOT_FOUND, `no service "${call.request.service}" here`));
      },
      watch: (call: ServerWritableStream<Asked, Told>) => {
        call.write(this.#of(call.request.service));
        if (this.#draining) return void call.end();
        this.#watchers.add(call);
        call.once('cancelled', () => {
          this.#watchers.delete(call);
          call.end();
        });
      },
    };
  }

  drain(): void {
    this.#draining = true;
    for (const call of this.#watchers) {
      call.write(this.#of(call.request.service));
      call.end();
    }
    this.#watchers.clear();
  }

  #of(service: string): Told {
    if (service !== '' && !this.services.includes(service)) return { status: 'SERVICE_UNKNOWN' };
    return { status: this.#draining ? 'NOT_SERVING' : 'SERVING' };
  }
}
