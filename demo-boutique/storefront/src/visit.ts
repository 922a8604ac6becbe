/** One request of one visitor: who it is, what it wants to see, and what could not be had for it. */
import { randomUUID } from 'node:crypto';
import { traceparentIn } from '@boutique/chassis';
import { IncomingMessage } from 'node:http';

/** Prices are kept in this one. */
export const BASE_CURRENCY = 'USD';
const FIRST_CURRENCY = 'EUR';

export type Part = 'currency' | 'cart' | 'recommendation' | 'ads' | 'orderview';
export type Dependency = Part | 'catalog' | 'checkout' | 'orderlog';

/** Where what is shown of a dependency comes from: itself, what it said before, something else, or nowhere. */
export type Source = 'live' | 'missing' | 'fallback' | 'cached';

/** Of several calls to a dependency the later of these counts: it is what the visitor notices. */
const SOURCES: readonly Source[] = ['live', 'missing', 'fallback', 'cached'];

export class Visit {
  /** Parts of the answer that had to be left out or replaced. */
  readonly degraded = new Set<Part>();
  readonly shown = new Map<Dependency, Source>();
  /** Of when the prices are, if that is not now. */
  pricesAsOf: Date | undefined;

  constructor(
    readonly user: string,
    readonly currency: string,
    readonly traceparent: string | undefined,
    /** The visitor came without a session and has to be given one. */
    readonly isNew: boolean,
  ) {}

  saw(dependency: Dependency, source: Source): void {
    const before = this.shown.get(dependency) ?? source;
    if (SOURCES.indexOf(source) >= SOURCES.indexOf(before)) this.shown.set(dependency, source);
  }

  static from(request: IncomingMessage, url: URL): Visit {
    const cookies = cookiesOf(request.headers.cookie ?? '');
    const known = session(cookies.get('session'));
    const currency = code(url.searchParams.get('currency')) ?? code(cookies.get('currency')) ?? FIRST_CURRENCY;
    return new Visit(known ?? randomUUID(), currency, traceparentIn(request.headers), known === undefined);
  }
}

/** @param request to be kept off plain connections, if it came by another one as far as whoever passed it on says. */
export function cookie(name: string, value: string, request: IncomingMessage): string {
  const secure = request.headers['x-forwarded-proto'] === 'https' ? '; Secure' : '';
  return `${name}=${value}; Path=/; HttpOnly; SameSite=Lax${secure}`;
}

/** A currency code that is at least of the right shape. */
export function code(text: string | null | undefined): string | undefined {
  return text && /^[A-Z]{3}$/.test(text) ? text : undefined;
}

function session(text: string | undefined): string | undefined {
  return text && /^[\w-]{1,64}$/.test(text) ? text : undefined;
}

function cookiesOf(header: string): Map<string, string> {
  const pairs = header.split(';').map((pair) => pair.trim().split('='));
  return new Map(pairs.map(([name, value]) => [name ?? '', value ?? '']));
}
