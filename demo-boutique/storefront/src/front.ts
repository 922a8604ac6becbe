/** The HTTP server: faults first, then the route, then the answer; and an orderly end. */
import { Faults, Refusal, within } from '@boutique/chassis';
import { status } from '@grpc/grpc-js';
import { createServer, IncomingMessage, Server, ServerResponse } from 'node:http';
import { AddressInfo } from 'node:net';
import { Catalog } from './clients/catalog';
import { Echo } from './echo';
import { live } from './live';
import { timelineOrder, tellTimeline } from './timeline';
import { Reply, send, text } from './reply';
import { answer } from './routes';
import { Shop } from './shop';
import { Timelines } from './timelines';

/** Longer than whoever keeps connections to us, so that it is not us who closes one just being used. */
const KEEP_ALIVE_MS = 75_000;
const CONNECTIONS_MAX = 4_096;
/** Each is a stream of the catalog's as well. */
const PRICE_STREAMS_MAX = 256;

export class Front {
  readonly #server: Server;
  readonly #echo = new Echo();
  readonly #streams = new Set<ServerResponse>();
  #priceStreams = 0;
  #draining = false;

  constructor(
    private readonly shop: Shop,
    private readonly catalog: Catalog,
    private readonly timelines: Timelines,
    private readonly faults: Faults,
  ) {
    this.#server = createServer((request, response) => void this.#handle(request, response));
    this.#server.keepAliveTimeout = KEEP_ALIVE_MS;
    this.#server.maxConnections = CONNECTIONS_MAX;
    this.#echo.attach(this.#server);
  }

  /** Listens on both address families, or the one that there is; says on which port. */
  listen(port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, () => resolve((this.#server.address() as AddressInfo).port));
    });
  }

  /** Accepts nothing more and finishes what runs; streams that never end are ended. */
  async drain(graceMs: number): Promise<void> {
    this.#draining = true;
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeIdleConnections();
    this.#echo.drain();
    for (const response of this.#streams) response.end();
    await within(graceMs, closed);
    this.#server.closeAllConnections();
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      // Probes see the process, not the knobs.
      if (request.url === '/healthz') return this.#send(response, text(...(this.#draining ? GONE : WELL)));
      await this.faults.before(gone(response));
      // Work in a slot goes on without its visitor; a stream opened then would hear of no close, and never end.
      if (response.destroyed) return;
      const path = request.url?.split('?')[0];
      if (path === '/live' && request.method === 'GET') return this.#live(request, response);
      const order = timelineOrder(path);
      if (order !== undefined && request.method === 'GET') return await this.#timeline(order, request, response);
      this.#send(response, await answer(this.shop, request));
    } catch (error) {
      if (error instanceof Refusal) return this.#send(response, text(`${error.details}\n`, httpStatus(error.code)));
      console.error('storefront:', error);
      this.#send(response, text('something broke that nobody thought of\n', 500));
    }
  }

  /** While draining, the answer is the last one on its connection, also when it was asked for before. */
  #send(response: ServerResponse, reply: Reply): void {
    const last = this.#draining ? { connection: 'close' } : {};
    send(response, { ...reply, headers: { ...reply.headers, ...last } });
  }

  #live(request: IncomingMessage, response: ServerResponse): void {
    if (this.#priceStreams >= PRICE_STREAMS_MAX) {
      return this.#send(response, text('too many price streams are open\n', 503, { 'retry-after': '5' }));
    }
    this.#priceStreams++;
    response.once('close', () => this.#priceStreams--);
    this.#track(response);
    live(this.catalog, request, response);
  }

  async #timeline(orderId: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const open = () => this.#track(response);
    const refused = await tellTimeline(this.timelines, orderId, request, response, open);
    if (refused) this.#send(response, refused);
  }

  /** A stream that never ends is ended when the server drains. */
  #track(response: ServerResponse): void {
    this.#streams.add(response);
    response.once('close', () => this.#streams.delete(response));
    if (this.#draining) response.end();
  }
}

const WELL: [string, number] = ['ok\n', 200];
const GONE: [string, number] = ['draining\n', 503];

/** Aborts when the visitor leaves before the answer. */
function gone(response: ServerResponse): AbortSignal {
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  return gone.signal;
}

/** The status for a fault that was asked for as a gRPC code. */
function httpStatus(code: status): number {
  switch (code) {
    case status.UNAVAILABLE:
      return 503;
    case status.DEADLINE_EXCEEDED:
      return 504;
    case status.RESOURCE_EXHAUSTED:
      return 429;
    case status.UNIMPLEMENTED:
      return 501;
    case status.NOT_FOUND:
      return 404;
    case status.PERMISSION_DENIED:
      return 403;
    case status.UNAUTHENTICATED:
      return 401;
    case status.INVALID_ARGUMENT:
      return 400;
    default:
      return 500;
  }
}
