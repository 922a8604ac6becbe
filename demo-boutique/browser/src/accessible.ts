/** Whether everybody can use a page: axe's rules for WCAG 2.2 AA, contrast among them, and the keyboard alone. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Tab } from './tab';

const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const RULES = { type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] };

interface Violation {
  readonly id: string;
  readonly help: string;
  readonly nodes: readonly { readonly html: string; readonly failureSummary: string }[];
}

/** By everybody: says how many places there are to go to on it with the tab key. */
export async function usable(tab: Tab, page: string): Promise<number> {
  await accessible(tab, page);
  return reachable(tab, page);
}

async function accessible(tab: Tab, page: string): Promise<void> {
  await tab.see(`${AXE}; undefined`);
  const options = JSON.stringify({ runOnly: RULES, resultTypes: ['violations'] });
  const violations = await tab.see<Violation[]>(`axe.run(document, ${options}).then(({ violations }) => violations)`);
  const told = violations.map(({ id, help, nodes }) =>
    `${id}: ${help}\n${nodes.slice(0, 4).map(({ html, failureSummary }) => `    ${html}\n    ${failureSummary}`).join('\n')}`,
  );
  assert.equal(violations.length, 0, `${page}:\n${told.join('\n')}`);
}

/** The width of a page at 400 % of 1280 (WCAG 1.4.10). */
export const NARROW = 320;

/** Nothing sticks out of the window, and so nothing is lost; but for the strip's ground, which goes from edge to edge. */
export async function fits(tab: Tab, page: string): Promise<void> {
  const outside = await tab.see<string[]>(`[...document.querySelectorAll('body *:not(.unseen, .unseen *, .strip)')]
    .filter((each) => each.getBoundingClientRect().right > innerWidth + 0.5 || each.getBoundingClientRect().left < -0.5)
    .map((each) => each.outerHTML.slice(0, 100))`);
  assert.deepEqual(outside, [], `${page}: it sticks out of the window`);
  assert.ok(await tab.see('document.documentElement.scrollWidth <= innerWidth'), `${page}: it can be scrolled sideways`);
}

interface Focus {
  readonly what: string;
  /** In the document, of all elements. */
  readonly place: number;
  readonly isSeen: boolean;
}

/** All that can be clicked is reached with the tab key, in the order of the page, and each is seen to be: says how many. */
async function reachable(tab: Tab, page: string): Promise<number> {
  const wanted = await tab.see<number>(`[...document.querySelectorAll('a[href], button, select, summary, input:not([type=hidden])')].length`);
  const reached: number[] = [];
  for (let presses = 0; presses < wanted; presses++) {
    await tab.press('Tab');
    const { what, place, isSeen } = await tab.see<Focus>(`(() => {
      const focus = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(focus);
      const { left, top, width, height } = focus.getBoundingClientRect();
      const over = document.elementFromPoint(left + width / 2, top + height / 2);
      const isUncovered = over && (focus.contains(over) || over.contains(focus));
      const place = [...document.querySelectorAll('*')].indexOf(focus);
      return { what: focus.outerHTML.slice(0, 100), place, isSeen: outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2 && Boolean(isUncovered) };
    })()`);
    assert.ok(isSeen, `${page}: it has the focus, and nobody sees that: ${what}`);
    assert.ok(place > (reached.at(-1) ?? 0), `${page}: each of them once, in the order of the page, and not as ${what}`);
    reached.push(place);
  }
  return wanted;
}
