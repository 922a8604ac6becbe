/**
 * A service that another one calls, over several channels in turn.
 *
 * A gRPC channel is one connection and stays with the replica that it reached first. With
 * several, each replica gets its share of calls even where nothing balances requests.
 */
import { traced } from './trace';
import { ChannelOptions, Client, ClientDuplexStream, ClientReadableStream, credentials, ServiceDefinition } from '@grpc/grpc-js';

const OPTIONS: ChannelOptions = {
  'grpc.use_local_subchannel_pool': 1, // else channels of one address share a connection
  'grpc.enable_http_proxy': 0,
  'grpc.service_config_disable_resolution': 1, // spares a TXT query a name
  'grpc.initial_reconnect_backoff_ms': 200,
  'grpc.max_reconnect_backoff_ms': 2_000,
};

export class Dependency {
  readonly #channels: Client[];
  #turn = 0;

  constructor(
    private readonly definition: ServiceDefinition,
    address: string,
    channels: number,
    private readonly timeoutMs: number,
  ) {
    this.#channels = Array.from({ length: channels }, () => new Client(address, credentials.createInsecure(), OPTIONS));
  }

  /** A unary call; rejects with grpc-js's ServiceError. */
  call<Response>(method: string, request: object, traceparent: string | undefined): Promise<Response> {
    const { path, requestSerialize, responseDeserialize } = this.definition[method]!;
    return new Promise((resolve, reject) => {
      this.#next().makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        traced(traceparent),
        { deadline: Date.now() + this.timeoutMs },
        (error, response) => (error ? reject(error) : resolve(response as Response)),
      );
    });
  }

  /** A stream without a deadline: whoever opens it cancels it. */
  watch<Response>(method: string, request: object, traceparent: string | undefined): ClientReadableStream<Response> {
    const { path, requestSerialize, responseDeserialize } = this.definition[method]!;
    const deserialize = (bytes: Buffer) => responseDeserialize(bytes) as Response;
    return this.#next().makeServerStreamRequest(path, requestSerialize, deserialize, request, traced(traceparent));
  }

  /** A stream in both directions, without a deadline: whoever opens it cancels it. */
  converse<Request, Response>(method: string): ClientDuplexStream<Request, Response> {
    const { path, requestSerialize, responseDeserialize } = this.definition[method]!;
    const deserialize = (bytes: Buffer) => responseDeserialize(bytes) as Response;
    return this.#next().makeBidiStreamRequest<Request, Response>(path, requestSerialize, deserialize);
  }

  close(): void {
    for (const channel of this.#channels) channel.close();
  }

  #next(): Client {
    this.#turn = (this.#turn + 1) % this.#channels.length;
    return this.#channels[this.#turn]!;
  }
}
