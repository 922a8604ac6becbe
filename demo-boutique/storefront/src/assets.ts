/** The style sheet and the script, read once. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

interface Asset {
  readonly type: string;
  readonly body: string;
}

const FOLDER = join(__dirname, '../assets');

function asset(name: string, type: string): [string, Asset] {
  return [`/${name}`, { type: `${type}; charset=utf-8`, body: readFileSync(join(FOLDER, name), 'utf8') }];
}

export const ASSETS = new Map([asset('style.css', 'text/css'), asset('live.js', 'text/javascript'), asset('strip.js', 'text/javascript')]);
