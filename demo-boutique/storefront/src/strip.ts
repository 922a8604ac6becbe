/**
 * The strip: for each service that the shop calls, how calls to it go, as the sidecar has it, and where what the shop
 * shows of it comes from, as the shop itself knows.
 */
import { Known, Report, Sidecar } from './sidecar';
import { Settings } from './settings';
import { Dependency, Source, Visit } from './visit';

export interface Tile {
  readonly name: Dependency;
  /** Mesh: the service had no answer, and the sidecar another one; the shop took it for its own. */
  readonly source: Source | 'idle' | 'mesh';
  /** Undefined where the sidecar does not know the service: nobody called it lately. */
  readonly known: Known | undefined;
}

export interface View {
  readonly sidecar: 'there' | 'absent' | 'silent' | 'unasked';
  readonly tiles: readonly Tile[];
}

/** Where a page has what it shows from; older than this says nothing about now. */
const IDLE_AFTER_MS = 30_000;
/** Pages show what the sidecar said no longer ago than this. */
const OLD_MS = 5_000;

export class Strip {
  readonly #sidecar: Sidecar;
  readonly #addresses: readonly [Dependency, string][];
  readonly #last = new Map<Dependency, { readonly source: Source; readonly at: number }>();

  constructor(settings: Settings) {
    this.#sidecar = new Sidecar(settings.sidecarAddr, settings.sidecarTimeoutMs);
    this.#addresses = [
      ['catalog', settings.catalogAddr],
      ['currency', settings.currencyAddr],
      ['cart', settings.cartAddr],
      ['recommendation', settings.recommendationAddr],
      ['ads', settings.adsAddr],
      ['checkout', settings.checkoutAddr],
      ['orderview', settings.orderviewAddr],
      ['orderlog', settings.orderlogAddr],
    ];
  }

  /** To be known by the time the page is written; nobody waits for it. */
  refresh(): void {
    void this.#sidecar.report();
  }

  /** What a visitor was shown. */
  note({ shown }: Visit): void {
    for (const [name, source] of shown) this.#last.set(name, { source, at: Date.now() });
  }

  async now(): Promise<View> {
    return this.#view(await this.#sidecar.report());
  }

  /** As far as it is known without asking. What this page itself shows is known best. */
  of({ shown }: Visit): View {
    return this.#view(this.#sidecar.latest(OLD_MS), shown);
  }

  #view(report: Report | undefined, shown?: ReadonlyMap<Dependency, Source>): View {
    const services = report instanceof Map ? report : new Map<string, Known>();
    const tiles = this.#addresses.map(([name, address]): Tile => {
      const source = shown?.get(name) ?? this.#source(name);
      const known = [...services].find(([service]) => isMeant(address, service))?.[1];
      return { name, source: source === 'live' && known?.isFallingBack ? 'mesh' : source, known };
    });
    return { sidecar: report instanceof Map ? 'there' : ((report as 'absent' | 'silent' | undefined) ?? 'unasked'), tiles };
  }

  #source(name: Dependency): Source | 'idle' {
    const last = this.#last.get(name);
    return last && Date.now() - last.at <= IDLE_AFTER_MS ? last.source : 'idle';
  }
}

/** Whether an address such as `cart:7070` or `cart.boutique.svc:7070` is that of `boutique/cart:7070`. */
export function isMeant(address: string, service: string): boolean {
  const [namespace, named] = service.split('/');
  const [host, port] = address.split(':');
  const [name, itsNamespace] = (host ?? '').split('.');
  return named === `${name}:${port}` && (itsNamespace === undefined || itsNamespace === namespace);
}
