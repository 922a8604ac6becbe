/** The strip at the foot of each page. Without a script it is as of the page, with one as of the last second. */
import { Known } from '../sidecar';
import { Tile, View } from '../strip';
import { Html, html } from './html';

/** What a tile says, in words; the script puts in the same ones. */
export interface Words {
  readonly breaker: string;
  readonly p99: string;
  readonly flight: string;
  readonly endpoints: string;
  readonly source: string;
}

const NO_TILES: Record<Exclude<View['sidecar'], 'there'>, string> = {
  absent: 'No sidecar stands beside this shop: it calls its services as they are.',
  silent: 'The sidecar of this shop does not answer just now.',
  unasked: 'The sidecar of this shop has not been heard yet.',
};

const SOURCES: Record<Tile['source'], string> = {
  live: 'live',
  cached: 'cached',
  fallback: 'fallback',
  mesh: 'fallback by the mesh',
  missing: 'missing',
  idle: 'not asked',
};

export function strip({ sidecar, tiles }: View): Html {
  return html`<aside class="strip" aria-label="How the services of this shop are" data-sidecar="${sidecar}">
    <details open>
      <summary>Services</summary>
      <p class="quiet">${sidecar === 'there' ? undefined : NO_TILES[sidecar]}</p>
      <ul>${tiles.map(tile)}</ul>
    </details>
    <p class="unseen" role="status" data-changes></p>
  </aside>`;
}

function tile(of: Tile): Html {
  const { breaker, p99, flight, endpoints, source } = words(of);
  return html`
        <li data-dependency="${of.name}" data-breaker="${of.known?.breaker ?? 'unknown'}" data-source="${of.source}">
          <i></i><b>${of.name}</b><span data-word="source">${source}</span>
          <p><span><span class="unseen">breaker </span><span data-word="breaker">${breaker}</span></span> <span data-word="endpoints">${endpoints}</span>
            <span><abbr title="99 of 100 answers came within">p99</abbr> <span data-word="p99">${p99}</span></span>
            <span title="calls in flight, of those that may be"><span data-word="flight">${flight}</span><span class="unseen"> calls in flight</span></span></p>
        </li>`;
}

/** The same for programs, and for the script. */
export function stripJson({ sidecar, tiles }: View): object {
  return {
    sidecar,
    note: sidecar === 'there' ? '' : NO_TILES[sidecar],
    dependencies: tiles.map((tile) => ({
      name: tile.name,
      source: tile.source,
      ...tile.known,
      breaker: tile.known?.breaker ?? 'unknown',
      words: words(tile),
    })),
  };
}

export function words({ known, source }: Tile): Words {
  return {
    breaker: known ? breakerWord(known) : 'Not called',
    p99: known?.p99Ms === undefined ? '–' : millis(known.p99Ms),
    flight: known ? `${known.inFlight} / ${known.inFlightMax}` : '–',
    endpoints: known ? endpointsWord(known) : '',
    source: SOURCES[source],
  };
}

function breakerWord({ breaker, isForced }: Known): string {
  const word = { none: 'No breaker', closed: 'Closed', 'half-open': 'Half-open', open: 'Open' }[breaker];
  return isForced ? `Forced ${word.toLowerCase()}` : word;
}

function endpointsWord({ endpoints, endpointsUp }: Known): string {
  return endpointsUp === endpoints ? `${endpoints} up` : `${endpointsUp} of ${endpoints} up`;
}

function millis(ms: number): string {
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  return ms < 999.5 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
