/** Settings from the environment, each checked where it is read. */

export type Environment = Record<string, string | undefined>;

/** The number in a variable, or the fallback where it is unset or empty. */
export function integer(env: Environment, name: string, fallback: number): number {
  const text = env[name];
  if (!text) return fallback;
  if (!/^\d{1,9}$/.test(text)) throw new Error(`${name}="${text}": expected a number from 0`);
  return Number(text);
}

export function text(env: Environment, name: string, fallback: string): string {
  return env[name] || fallback;
}

/** One of these words; the first where it is unset or empty. */
export function oneOf<Word extends string>(env: Environment, name: string, words: readonly [Word, ...Word[]]): Word {
  const value = env[name] || words[0];
  const word = words.find((each) => each === value);
  if (word === undefined) throw new Error(`${name}="${value}": expected ${words.join(' or ')}`);
  return word;
}

/** On for "1"; off for "0", or where it is unset or empty. */
export function flag(env: Environment, name: string): boolean {
  const value = env[name] || '0';
  if (value !== '0' && value !== '1') throw new Error(`${name}="${value}": expected 0 or 1`);
  return value === '1';
}
