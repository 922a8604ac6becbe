import { handleUnaryCall, sendUnaryData, ServerUnaryCall, status } from '@grpc/grpc-js';
import { Faults } from './faults';
import { Refusal } from './refusal';

/** A unary handler that returns its answer or throws, after the faults have had their way. */
export function unary<Request, Response>(
  faults: Faults,
  answer: (request: Request) => Response | Promise<Response>,
): handleUnaryCall<Request, Response> {
  return (call: ServerUnaryCall<Request, Response>, callback: sendUnaryData<Response>) => {
    const gone = new AbortController();
    call.once('cancelled', () => gone.abort());
    faults
      .before(gone.signal)
      .then(() => answer(call.request))
      .then(
        (response) => callback(null, response),
        (error: Error) => callback(error instanceof Refusal ? error : unforeseen(error)),
      );
  };
}

function unforeseen(error: Error): Refusal {
  console.error(error);
  return new Refusal(status.INTERNAL, error.message);
}
