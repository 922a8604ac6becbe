/** An answer as a value: made by routes, written to the socket in one place. */
import { ServerResponse } from 'node:http';

export interface Reply {
  readonly status: number;
  readonly headers: Record<string, string | string[]>;
  readonly body: string;
}

/** Only our own style sheet, script and drawings; no framing, no foreign form targets. */
const POLICY =
  "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

export function page(body: string, status = 200, headers: Reply['headers'] = {}): Reply {
  return reply(status, 'text/html; charset=utf-8', body, { 'content-security-policy': POLICY, ...headers });
}

export function json(value: unknown, status = 200, headers: Reply['headers'] = {}): Reply {
  return reply(status, 'application/json', JSON.stringify(value) + '\n', headers);
}

export function text(body: string, status = 200, headers: Reply['headers'] = {}): Reply {
  return reply(status, 'text/plain; charset=utf-8', body, headers);
}

/** To another page, by GET, after a form was sent. */
export function seeOther(location: string, headers: Reply['headers'] = {}): Reply {
  return { status: 303, headers: { location, 'cache-control': 'no-store', ...headers }, body: '' };
}

export function reply(status: number, type: string, body: string, headers: Reply['headers']): Reply {
  return {
    status,
    headers: { 'content-type': type, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff', ...headers },
    body,
  };
}

export function send(response: ServerResponse, { status, headers, body }: Reply): void {
  if (response.destroyed || response.headersSent) return; // the visitor left meanwhile
  const length = status === 204 ? {} : { 'content-length': Buffer.byteLength(body) }; // RFC 9110, section 8.6
  response.writeHead(status, { ...headers, ...length });
  response.end(body);
}
