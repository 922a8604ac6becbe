/** A Chromium of our own, steered over two pipes (DevTools protocol): no port that others could find, and no library. */
import { ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';

const ANSWER_MS = 20_000;

type Listener = (method: string, params: any) => void;

export class Chromium {
  readonly #process: ChildProcess;
  readonly #profile = mkdtempSync(join(tmpdir(), 'weir-chromium-'));
  readonly #asked = new Map<number, { resolve(result: any): void; reject(error: Error): void }>();
  readonly #sessions = new Map<string, Listener>();
  #ids = 0;
  #said = '';

  constructor(program: string) {
    const flags = [
      '--headless=new',
      '--remote-debugging-pipe',
      `--user-data-dir=${this.#profile}`,
      '--no-first-run',
      '--no-default-browser-check',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--hide-scrollbars',
      '--force-color-profile=srgb',
      // Whoever is root has no sandbox to be in. It opens pages of this test and nothing else.
      ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
      'about:blank',
    ];
    this.#process = spawn(program, flags, { stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'], detached: true });
    this.#process.stderr!.on('data', (bytes: Buffer) => (this.#said = (this.#said + bytes).slice(-2_000)));
    this.#process.once('error', (error) => this.#over(error));
    this.#process.once('exit', (code) => this.#over(new Error(`chromium is gone (${code}): ${this.#said}`)));
    this.#receive(this.#process.stdio[4] as Readable);
  }

  send(method: string, params: object = {}, sessionId?: string): Promise<any> {
    const id = ++this.#ids;
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`${method}: no answer in ${ANSWER_MS} ms`)), ANSWER_MS);
      const ended = () => {
        clearTimeout(late);
        this.#asked.delete(id);
      };
      this.#asked.set(id, {
        resolve: (result) => (ended(), resolve(result)),
        reject: (error) => (ended(), reject(new Error(`${method}: ${error.message}`))),
      });
      (this.#process.stdio[3] as Writable).write(JSON.stringify({ id, method, params, sessionId }) + '\0');
    });
  }

  /** A window of its own, with cookies of its own; says what its events go by. */
  async open(listener: Listener): Promise<string> {
    const { browserContextId } = await this.send('Target.createBrowserContext');
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank', browserContextId });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    this.#sessions.set(sessionId, listener);
    return sessionId;
  }

  async close(): Promise<void> {
    const gone = new Promise((resolve) => this.#process.once('exit', resolve));
    const isRunning = this.#process.exitCode === null && this.#process.signalCode === null;
    if (this.#process.pid && isRunning) {
      process.kill(-this.#process.pid, 'SIGKILL'); // its helpers too: they are a group
      await gone;
    }
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }

  #receive(from: Readable): void {
    let rest = '';
    from.setEncoding('utf8').on('data', (text: string) => {
      const messages = (rest + text).split('\0');
      rest = messages.pop()!;
      for (const message of messages) this.#hear(JSON.parse(message));
    });
  }

  #hear({ id, result, error, method, params, sessionId }: any): void {
    if (id === undefined) return this.#sessions.get(sessionId)?.(method, params);
    if (error) this.#asked.get(id)?.reject(error);
    else this.#asked.get(id)?.resolve(result);
  }

  #over(error: Error): void {
    for (const { reject } of this.#asked.values()) reject(error);
  }
}
