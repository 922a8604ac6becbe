import { IncomingMessage } from 'node:http';

/** The forms and JSON of this shop are a few words long. */
const BODY_BYTES_MAX = 16 * 1024;

export class BadRequest extends Error {
  constructor(
    message: string,
    readonly status = 400,
  ) {
    super(message);
  }
}

/** The fields of a form, or of a flat JSON object. */
export async function fields(request: IncomingMessage): Promise<Map<string, string>> {
  const text = await read(request);
  if (!request.headers['content-type']?.startsWith('application/json')) return new Map(new URLSearchParams(text));
  try {
    return new Map(Object.entries(JSON.parse(text) as object).map(([name, value]) => [name, wellFormed(String(value))]));
  } catch {
    throw new BadRequest('this is no JSON object');
  }
}

/** So many UTF-16 units of it at most, without half of a pair at the end. */
export function cut(text: string, unitsMax: number): string {
  return text.slice(0, unitsMax).replace(/[\ud800-\udbff]$/, '');
}

/** JSON can say half a surrogate pair, and UTF-8 cannot: whoever was sent that would break over the whole message. */
function wellFormed(text: string): string {
  return Buffer.from(text).toString();
}

async function read(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw new BadRequest(`more than ${BODY_BYTES_MAX} bytes`, 413);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
