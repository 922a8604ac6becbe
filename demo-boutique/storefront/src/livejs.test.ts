/** The page's script, with as much of a browser as it touches. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runInNewContext } from 'node:vm';
import { ASSETS } from './assets';

class Source {
  static readonly CLOSED = 2;
  static readonly all: Source[] = [];
  readyState = 1;
  onmessage = (_: { data: string }): void => undefined;
  onerror = (): void => undefined;

  constructor(readonly url: string) {
    Source.all.push(this);
  }
  close(): void {
    this.readyState = Source.CLOSED;
  }
  say(step: string, more: object = {}): void {
    this.onmessage({ data: JSON.stringify({ step, note: '', last: false, ...more }) });
  }
}

test('chips are added once each, the title follows, and after the last one the browser does not ask again', () => {
  const [chips, said, later]: [string[], string[], (() => void)[]] = [['Placed'], [], []];
  const heading = { textContent: 'pending' };
  const order = { querySelector: (what: string) => (what === 'h1' ? heading : { remove: () => said.push('removed') }) };
  const timeline = {
    dataset: { timeline: 'o-1' },
    querySelector: (what: string) => chips.find((chip) => what === `[data-step="${chip}"]`),
    append: ({ dataset }: { dataset: { step: string } }) => chips.push(dataset.step),
    closest: () => order,
  };
  const document = {
    querySelectorAll: (what: string) => (what === '[data-timeline]' ? [timeline] : []),
    createElement: () => ({ dataset: {}, append: () => undefined }),
  };
  const setTimeout = (call: (...all: unknown[]) => void, _: number, ...all: unknown[]) => later.push(() => call(...all));
  runInNewContext(ASSETS.get('/live.js')!.body, { document, EventSource: Source, setTimeout });

  const [first] = Source.all;
  assert.equal(first!.url, '/live/orders/o-1');
  first!.say('Placed', { title: 'Old' });
  assert.deepEqual([chips, heading.textContent, said], [['Placed'], 'pending', []]);
  first!.say('Paid', { title: 'Paid!' });
  assert.deepEqual([chips, heading.textContent, said], [['Placed', 'Paid'], 'Paid!', ['removed']]);
  first!.onerror(); // a stream that broke: the browser comes back by itself
  assert.equal(later.length, 0);
  first!.readyState = Source.CLOSED; // it was refused
  first!.onerror();
  later.shift()!();
  const [, second] = Source.all;
  second!.say('Confirmed', { title: 'Thanks', last: true });
  assert.deepEqual([chips.at(-1), second!.readyState], ['Confirmed', Source.CLOSED]);
  for (let tries = 0; tries < 40; tries++) {
    const latest = Source.all.at(-1)!;
    latest.readyState = Source.CLOSED;
    latest.onerror();
    later.shift()?.();
  }
  assert.equal(Source.all.length, 2 + 20);
});
