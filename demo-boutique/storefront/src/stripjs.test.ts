/** The strip's script, with as much of a browser as it touches. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runInNewContext } from 'node:vm';
import { ASSETS } from './assets';

class Place {
  readonly dataset: Record<string, string> = {};
  readonly writes: string[] = [];
  #text = '';

  get textContent(): string {
    return this.#text;
  }
  set textContent(text: string) {
    this.writes.push(text);
    this.#text = text;
  }
}

const soon = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('a tile changes when the shop says so, a breaker is told of once, and nobody asks while nobody looks', async () => {
  const [tile, word, quiet, changes] = [new Place(), new Place(), new Place(), new Place()];
  Object.assign(tile.dataset, { breaker: 'closed' });
  const details = { open: true, addEventListener: (_: string, toggled: () => void) => waiting.push(toggled) };
  const places: Record<string, object> = { details, '.quiet': quiet, '[data-changes]': changes, '[data-dependency="ads"]': Object.assign(tile, { querySelector: () => word }) };
  const strip = Object.assign(new Place(), { querySelector: (what: string) => places[what] });
  const waiting: (() => void)[] = [];
  const timers: [() => void, number][] = [];
  const answers: (object | Error)[] = [];
  let asked = 0;
  const document = {
    hidden: false,
    querySelectorAll: () => [strip],
    addEventListener: (_: string, seen: () => void) => waiting.push(seen),
  };
  const fetch = async () => {
    asked++;
    const answer = answers.shift();
    if (answer === undefined || answer instanceof Error) throw answer;
    return { ok: true, json: async () => answer };
  };
  const say = (breaker: string, text: string) =>
    answers.push({ sidecar: 'there', note: '', dependencies: [{ name: 'ads', source: 'live', breaker, words: { breaker: text } }] });
  /** Lets it wait, and its wait be over; says how long that would have been. */
  const turn = async (): Promise<number | undefined> => {
    await soon();
    const [over, wait] = timers.shift() ?? [];
    over?.();
    await soon();
    return wait;
  };

  say('closed', 'Closed');
  say('open', 'Open');
  say('open', 'Open');
  answers.push(new Error('the shop is gone'));
  runInNewContext(ASSETS.get('/strip.js')!.body, {
    document,
    fetch,
    AbortSignal,
    setTimeout: (over: () => void, wait: number) => timers.push([over, wait]),
  });
  assert.equal(await turn(), 1_000);
  assert.deepEqual([strip.dataset['sidecar'], tile.dataset, changes.writes], ['there', { breaker: 'open', source: 'live' }, ['ads: breaker Open']]);
  assert.equal(await turn(), 1_000);
  assert.deepEqual([word.writes, changes.writes.length, quiet.writes], [['Closed', 'Open'], 1, []]);
  assert.equal(await turn(), 1_000);

  details.open = false;
  assert.equal(await turn(), 5_000, 'it does not press a shop that does not answer');
  details.open = true;
  document.hidden = true;
  waiting.shift()!();
  await soon();
  assert.deepEqual([asked, timers.length, waiting.length], [4, 0, 1]);
  document.hidden = false;
  waiting.shift()!();
  await soon();
  assert.equal(asked, 5);
});
