/** One window: goes somewhere, looks, clicks and types as a visitor does. */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Chromium } from './chromium';

const PATIENCE_MS = 20_000;
const LOOK_EACH_MS = 50;
/** More than any page has to go to. */
const PLACES_MAX = 100;

export class Tab {
  /** What went wrong in the page without anybody seeing it. */
  readonly errors: string[] = [];
  #loads = 0;

  private constructor(
    private readonly chromium: Chromium,
    private readonly origin: string,
    private readonly pictures: string,
  ) {}

  #session = '';

  static async open(chromium: Chromium, origin: string, pictures: string): Promise<Tab> {
    const tab = new Tab(chromium, origin, pictures);
    tab.#session = await chromium.open((method, params) => tab.#hear(method, params));
    for (const domain of ['Page', 'Runtime', 'Log']) await tab.#send(`${domain}.enable`);
    await tab.resize(1280, 860);
    return tab;
  }

  async resize(width: number, height: number): Promise<void> {
    await this.#send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: false });
  }

  /** None run on the pages that it goes to. */
  async withoutScripts(): Promise<void> {
    await this.#send('Emulation.setScriptExecutionDisabled', { value: true });
  }

  /** Again. The page that is open stays as it is: its own were left out when it was loaded. */
  async withScripts(): Promise<void> {
    await this.#send('Emulation.setScriptExecutionDisabled', { value: false });
  }

  /** Until the page has loaded; says how long that took. */
  async go(path: string): Promise<number> {
    const began = performance.now();
    await this.#loading(() => this.#send('Page.navigate', { url: new URL(path, this.origin).href }));
    return performance.now() - began;
  }

  /** A real click, where the middle of it is: whatever lies over it gets it instead. The page that follows is waited for. */
  async click(selector: string): Promise<void> {
    const { x, y } = await this.see<{ x: number; y: number }>(`(() => {
      const found = document.querySelector(${JSON.stringify(selector)});
      found.scrollIntoView({ block: 'center', behavior: 'instant' });
      const { left, top, width, height } = found.getBoundingClientRect();
      return { x: left + width / 2, y: top + height / 2 };
    })()`);
    await this.#loading(async () => {
      for (const type of ['mousePressed', 'mouseReleased']) {
        await this.#send('Input.dispatchMouseEvent', { type, x, y, button: 'left', clickCount: 1 });
      }
    });
  }

  async press(key: 'Tab' | 'Enter'): Promise<void> {
    const code = { Tab: 9, Enter: 13 }[key];
    const text = key === 'Enter' ? '\r' : '';
    const press = { key, code: key, windowsVirtualKeyCode: code, text };
    await this.#send('Input.dispatchKeyEvent', { type: text ? 'keyDown' : 'rawKeyDown', ...press });
    await this.#send('Input.dispatchKeyEvent', { type: 'keyUp', ...press });
  }

  /** With the keys alone: to the next place that this names, in which text is if that is said, and a page further. */
  async enter(selector: string, text?: string): Promise<void> {
    const isThere = `document.activeElement?.matches(${JSON.stringify(selector)})`;
    for (let presses = 0; !(await this.see<boolean>(isThere)); presses++) {
      assert.ok(presses < PLACES_MAX, `the tab key does not lead to ${selector}`);
      await this.press('Tab');
    }
    if (text !== undefined) await this.type(text);
    await this.#loading(() => this.press('Enter'));
  }

  /** Into whatever has the focus. */
  async type(text: string): Promise<void> {
    await this.#send('Input.insertText', { text });
  }

  async see<Value>(expression: string): Promise<Value> {
    const asked = { expression, returnByValue: true, awaitPromise: true };
    const { result, exceptionDetails } = await this.#send('Runtime.evaluate', asked);
    if (exceptionDetails) throw new Error(`${exceptionDetails.exception?.description ?? exceptionDetails.text}\n${expression}`);
    return result.value;
  }

  async text(selector = 'body'): Promise<string> {
    return (await this.see<string | undefined>(`document.querySelector(${JSON.stringify(selector)})?.innerText`)) ?? '';
  }

  texts(selector: string): Promise<string[]> {
    return this.see(`[...document.querySelectorAll(${JSON.stringify(selector)})].map((each) => each.innerText)`);
  }

  /** Until an expression is true in the page. */
  async until(what: string, expression: string, patienceMs = PATIENCE_MS): Promise<void> {
    const end = performance.now() + patienceMs;
    while (!(await this.see<boolean>(`Boolean(${expression})`))) {
      if (performance.now() > end) assert.fail(`not within ${patienceMs} ms: ${what}\n${await this.text('main')}\n${await this.text('.strip')}`);
      await sleep(LOOK_EACH_MS);
    }
  }

  async picture(name: string, whole = false): Promise<void> {
    await this.see('scrollTo(0, 0)');
    const { data } = await this.#send('Page.captureScreenshot', { format: 'png', captureBeyondViewport: whole });
    mkdirSync(this.pictures, { recursive: true });
    writeFileSync(join(this.pictures, `${name}.png`), Buffer.from(data, 'base64'));
  }

  #send(method: string, params: object = {}): Promise<any> {
    return this.chromium.send(method, params, this.#session);
  }

  async #loading(act: () => Promise<unknown>): Promise<void> {
    const before = this.#loads;
    await act();
    const end = performance.now() + PATIENCE_MS;
    while (this.#loads === before) {
      assert.ok(performance.now() < end, `no page has loaded within ${PATIENCE_MS} ms`);
      await sleep(5);
    }
  }

  #hear(method: string, params: any): void {
    if (method === 'Page.loadEventFired') this.#loads++;
    if (method === 'Runtime.exceptionThrown') this.errors.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    if (method === 'Log.entryAdded' && params.entry.level === 'error') this.errors.push(`${params.entry.text} ${params.entry.url ?? ''}`);
  }
}
