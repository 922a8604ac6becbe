/** Server-sent events: the catalog's price ticks, passed on to one browser at its own pace. */
import { traceparentIn } from '@boutique/chassis';
import { IncomingMessage, ServerResponse } from 'node:http';
import { Catalog, PriceTick } from './clients/catalog';
import { format } from './money';

/** What a browser waits before it opens a new stream in place of one that ended. */
const RETRY_MS = 2_000;

/** Begins a stream of events. */
export function beginEvents(response: ServerResponse): void {
  response.writeHead(200, {
    'content-type': 'text/event-stream',
    'cache-control': 'no-store',
    connection: 'close', // it will have been used for minutes
  });
  response.write(`retry: ${RETRY_MS}\n\n`);
}

export function live(catalog: Catalog, request: IncomingMessage, response: ServerResponse): void {
  beginEvents(response);

  const ticks = catalog.watchPrices(traceparentIn(request.headers));
  ticks.on('data', (tick: PriceTick) => {
    // A browser that does not read stops the catalog, and nothing piles up in between.
    if (!response.write(event(tick))) ticks.pause();
  });
  response.on('drain', () => ticks.resume());
  ticks.on('error', () => response.end());
  ticks.on('end', () => response.end());
  response.on('close', () => ticks.cancel());
}

function event({ productId, priceUsd, atUnixMs }: PriceTick): string {
  return `data: ${JSON.stringify({ id: productId, price: format(priceUsd), at: atUnixMs })}\n\n`;
}
