/** What the sidecar beside this shop, if there is one, says of the services that the shop calls. */
import { get, IncomingMessage } from 'node:http';

/** Of one service, as far as a visitor may be interested. */
export interface Known {
  readonly breaker: Breaker;
  /** An operator or a policy holds the breaker where it is. */
  readonly isForced: boolean;
  /** Undefined when nothing was answered lately. */
  readonly p99Ms: number | undefined;
  readonly inFlight: number;
  readonly inFlightMax: number;
  readonly endpoints: number;
  /** Of those that take calls. */
  readonly endpointsUp: number;
  /** How often it gave an answer of its own, or of somebody else, where this service had none. */
  readonly fallbacks: number;
  /** And whether it did so lately. */
  readonly isFallingBack: boolean;
}

export type Breaker = 'none' | 'closed' | 'half-open' | 'open';

/** By `namespace/name:port`; or why there is nothing: nobody listens there, or what does makes no sense. */
export type Report = ReadonlyMap<string, Known> | 'absent' | 'silent';

const FRESH_MS = 1_000;
const ANSWER_BYTES_MAX = 512 * 1024;
/** A fallback is shown for so long. */
const LATELY_MS = 5_000;

export class Sidecar {
  #latest: { readonly at: number; readonly report: Report } | undefined;
  #asking: Promise<Report> | undefined;
  /** By service: when its fallbacks were seen to have become more. */
  readonly #fellBackAt = new Map<string, number>();
  #fallbacks: ReadonlyMap<string, Known> | undefined;

  /** @param address host:port of its admin endpoint. */
  constructor(
    private readonly address: string,
    private readonly timeoutMs: number,
  ) {}

  /** However many ask: it is asked once a second, and by one at a time. */
  report(): Promise<Report> {
    const known = this.latest(FRESH_MS);
    if (known !== undefined) return Promise.resolve(known);
    this.#asking ??= this.#ask().finally(() => (this.#asking = undefined));
    return this.#asking;
  }

  /** What was said no longer ago than this. */
  latest(ageMsMax: number): Report | undefined {
    return this.#latest && Date.now() - this.#latest.at <= ageMsMax ? this.#latest.report : undefined;
  }

  async #ask(): Promise<Report> {
    const report = await state(this.address, this.timeoutMs).then(reportOf, (error: NodeJS.ErrnoException): Report =>
      error.code === 'ECONNREFUSED' ? 'absent' : 'silent',
    );
    const now = Date.now();
    const told = report instanceof Map ? this.#withFallbacks(report, now) : report;
    this.#latest = { at: now, report: told };
    return told;
  }

  /** It counts, and does not say when: what has become more since it was last heard is of now. */
  #withFallbacks(report: ReadonlyMap<string, Known>, now: number): ReadonlyMap<string, Known> {
    for (const [service, { fallbacks }] of report) {
      const before = this.#fallbacks?.get(service)?.fallbacks ?? (this.#fallbacks ? 0 : fallbacks);
      if (fallbacks > before) this.#fellBackAt.set(service, now);
    }
    for (const service of this.#fellBackAt.keys()) if (!report.has(service)) this.#fellBackAt.delete(service);
    this.#fallbacks = report;
    return new Map([...report].map(([service, known]) => {
      const at = this.#fellBackAt.get(service);
      return [service, { ...known, isFallingBack: at !== undefined && now - at <= LATELY_MS }];
    }));
  }
}

function state(address: string, timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(timeoutMs);
    const request = get(`http://${address}/state`, { signal, agent: false }, (response: IncomingMessage) => {
      if (response.statusCode !== 200) return void request.destroy(new Error(`status ${response.statusCode}`));
      const parts: Buffer[] = [];
      let length = 0;
      response.on('data', (part: Buffer) => {
        length += part.length;
        if (length > ANSWER_BYTES_MAX) request.destroy(new Error('an answer without an end'));
        parts.push(part);
      });
      response.on('end', () => resolve(Buffer.concat(parts).toString()));
      response.on('error', reject);
    });
    request.on('error', reject);
  });
}

interface Service {
  readonly inFlight: number;
  readonly inFlightMax: number;
  readonly p99Ms: number;
  readonly fallbacks?: number;
  readonly breakers: Record<string, string>;
  readonly endpoints: readonly { readonly state: string }[];
}

/** Whatever listens there may be something else altogether. */
export function reportOf(text: string): Report {
  try {
    const { services } = JSON.parse(text) as { services: Record<string, Service> };
    return new Map(Object.entries(services).map(([key, service]) => [key, known(service)]));
  } catch {
    return 'silent';
  }
}

function known({ inFlight, inFlightMax, p99Ms, fallbacks = 0, breakers, endpoints }: Service): Known {
  if (![inFlight, inFlightMax, p99Ms, fallbacks].every(Number.isFinite)) throw new Error('no numbers where there should be');
  const [breaker, isForced] = worst(Object.values(breakers));
  return {
    breaker,
    isForced,
    p99Ms: p99Ms > 0 ? p99Ms : undefined,
    inFlight,
    inFlightMax,
    endpoints: endpoints.length,
    endpointsUp: endpoints.filter(({ state }) => state === 'closed' || state === 'ramping').length,
    fallbacks,
    isFallingBack: false,
  };
}

/** From good to bad. */
const BREAKERS: readonly Breaker[] = ['none', 'closed', 'half-open', 'open'];

/** Routes may have breakers of their own: the one that lets the least through, and whether it is forced. */
function worst(states: readonly string[]): [Breaker, boolean] {
  let [breaker, isForced]: [Breaker, boolean] = ['none', false];
  for (const state of states) {
    const own = BREAKERS.find((each) => each === state.replace('forced ', ''));
    if (own === undefined || BREAKERS.indexOf(own) < BREAKERS.indexOf(breaker)) continue;
    [breaker, isForced] = [own, state.startsWith('forced ')];
  }
  return [breaker, isForced];
}
