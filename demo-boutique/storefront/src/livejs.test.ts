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
  price(id: string, price: string): void {
    this.onmessage({ data: JSON.stringify({ id, price }) });
  }
  refuse(): void {
    this.readyState = Source.CLOSED;
    this.onerror();
  }
}

/** A page with these places, and who looks at it. */
class Page {
  hidden = false;
  readonly later: (() => void)[] = [];
  readonly #looks: (() => void)[] = [];

  constructor(readonly places: Record<string, object[]>) {
    Source.all.length = 0;
  }
  run(): void {
    const page = this;
    const document = {
      get hidden() {
        return page.hidden;
      },
      querySelectorAll: (what: string) => this.places[what] ?? [],
      createElement: () => ({ dataset: {}, append: () => undefined }),
      addEventListener: (_: string, look: () => void) => this.#looks.push(look),
    };
    runInNewContext(ASSETS.get('/live.js')!.body, {
      document,
      EventSource: Source,
      setTimeout: (call: () => void) => this.later.push(call) && call,
      clearTimeout: (call: () => void) => this.later.includes(call) && this.later.splice(this.later.indexOf(call), 1),
    });
  }
  /** Somebody turns to this tab, or away from it. */
  look(hidden: boolean): void {
    this.hidden = hidden;
    for (const look of this.#looks) look();
  }
}

test('chips are added once each, the title follows, and after the last one the browser does not ask again', () => {
  const [chips, said]: [string[], string[]] = [['Placed'], []];
  const heading = { textContent: 'pending' };
  const order = { querySelector: (what: string) => (what === 'h1' ? heading : { remove: () => said.push('removed') }) };
  const timeline = {
    dataset: { timeline: 'o-1' },
    querySelector: (what: string) => chips.find((chip) => what === `[data-step="${chip}"]`),
    append: ({ dataset }: { dataset: { step: string } }) => chips.push(dataset.step),
    closest: () => order,
  };
  const page = new Page({ '[data-timeline]': [timeline] });
  const { later } = page;
  page.run();

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

test('nothing is listened to while nobody looks, and an order that is over never again', () => {
  const steps: string[] = [];
  const timeline = {
    dataset: { timeline: 'o-1' },
    querySelector: (what: string) => steps.find((step) => what === `[data-step="${step}"]`),
    append: ({ dataset }: { dataset: { step: string } }) => steps.push(dataset.step),
  };
  const spot = { dataset: { live: 'mug' }, textContent: '' };
  const page = new Page({ '[data-timeline]': [timeline], '[data-live]': [spot] });
  const open = () => Source.all.filter(({ readyState }) => readyState !== Source.CLOSED).map(({ url }) => url);
  page.hidden = true;
  page.run();
  assert.deepEqual(open(), [], 'a tab opened behind another');
  page.look(false);
  assert.deepEqual(open(), ['/live', '/live/orders/o-1']);
  Source.all[0]!.price('mug', '$11.00');
  Source.all[1]!.say('Placed');
  page.look(true);
  assert.deepEqual([open(), spot.textContent], [[], ''], 'nobody tells that price any more');
  page.look(false);
  assert.deepEqual(open(), ['/live', '/live/orders/o-1']);
  Source.all[2]!.price('mug', '$12.00');
  assert.equal(spot.textContent, 'spot $12.00', 'what it was before is too long ago for an arrow');
  for (const step of ['Placed', 'Confirmed']) Source.all[3]!.say(step, { last: step === 'Confirmed' });
  assert.deepEqual(steps, ['Placed', 'Confirmed']);
  Source.all[2]!.refuse();
  assert.equal(page.later.length, 1);
  page.look(true);
  assert.equal(page.later.length, 0, 'nor does it come again');
  page.look(false);
  assert.deepEqual(open(), ['/live']);
});

test('prices that were refused are asked for again, and none is shown while nobody tells', () => {
  const spot = { dataset: { live: 'mug' }, textContent: '' };
  const page = new Page({ '[data-live]': [spot] });
  page.run();
  Source.all[0]!.price('mug', '$11.00');
  Source.all[0]!.price('mug', '$10.50');
  assert.equal(spot.textContent, 'spot $10.50 ▼');
  Source.all[0]!.onerror(); // a stream that broke: the browser comes back by itself
  assert.deepEqual([spot.textContent, page.later.length], ['', 0]);
  Source.all[0]!.refuse();
  page.later.shift()!();
  Source.all[1]!.price('mug', '$10.00');
  assert.equal(spot.textContent, 'spot $10.00');
  for (let tries = 0; tries < 40; tries++) {
    Source.all.at(-1)!.refuse();
    page.later.shift()?.();
  }
  assert.deepEqual([Source.all.length, spot.textContent], [2 + 20, '']);
});
