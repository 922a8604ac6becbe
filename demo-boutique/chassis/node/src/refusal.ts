import { status } from '@grpc/grpc-js';

/** A call that ends with a gRPC status other than OK, and why. Throw it from a handler. */
export class Refusal extends Error {
  constructor(
    readonly code: status,
    readonly details: string,
  ) {
    super(`${status[code]}: ${details}`);
  }
}
