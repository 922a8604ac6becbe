/** Server-sent events: what happens to one order, until it is over. The id of an event is the seq of its fact. */
import { IncomingMessage, ServerResponse } from 'node:http';
import { Step, TITLES } from './facts';
import { beginEvents } from './live';
import { Reply, text } from './reply';
import { Sink, Timelines } from './timelines';
import { watched } from './trouble';
import { Visit } from './visit';

/** A whole timeline is a fifth of this. Whoever has so much unread does not read. */
const UNREAD_BYTES_MAX = 4 * 1024;

/** The order whose timeline has this path. */
export function timelineOrder(path: string | undefined): string | undefined {
  return /^\/live\/orders\/([\w-]{1,64})$/.exec(path ?? '')?.[1];
}

/** Answers what to say in place of a timeline, if there is none. */
export async function tellTimeline(
  timelines: Timelines,
  orderId: string,
  request: IncomingMessage,
  response: ServerResponse,
  opened: () => void,
): Promise<Reply | undefined> {
  const { user, traceparent } = Visit.from(request, new URL('http://storefront/'));
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  const begin = (): Sink => {
    beginEvents(response);
    opened();
    return sinkOf(response);
  };
  try {
    const telling = timelines.open(orderId, user, lastEventId(request), traceparent, gone.signal, begin);
    switch (await watched('orderlog', telling)) {
      case 'told':
        return undefined;
      case 'unknown':
        return text('you have no such order\n', 404);
      case 'over': // the one status after which a browser does not come back
        return { status: 204, headers: { 'cache-control': 'no-store' }, body: '' };
      case 'full':
        return text('too many timelines are open\n', 503, { 'retry-after': '5' });
    }
  } catch {
    return text('orderlog is unavailable\n', 503, { 'retry-after': '2' });
  }
}

export function sinkOf(response: Pick<ServerResponse, 'write' | 'end' | 'destroy' | 'destroyed' | 'writableEnded' | 'writableLength'>): Sink {
  const write = (text: string) => {
    if (response.writableEnded || response.destroyed) return true; // it is about to be gone
    response.write(text);
    return response.writableLength <= UNREAD_BYTES_MAX;
  };
  return {
    tell: ({ seq, name, note, standing, last }: Step) => {
      const title = standing && TITLES[standing];
      return write(`id: ${seq}\ndata: ${JSON.stringify({ seq, step: name, note, title, last })}\n\n`);
    },
    ping: () => write(':\n\n'),
    end: () => void response.end(),
    drop: () => void response.destroy(),
  };
}

/** What a browser that was cut off has seen; 0 for one that comes anew. */
function lastEventId(request: IncomingMessage): number {
  const id = request.headers['last-event-id'];
  return typeof id === 'string' && /^\d{1,15}$/.test(id) ? Number(id) : 0;
}
