/**
 * The shop's page in a real Chromium: `main.js CHROMIUM ORIGIN PICTURES`.
 *
 * The shop runs already, in the mesh. What is to happen to it is asked for on stdout (see stage.ts), and
 * tests/storefront.rs does it. Pictures of every page are left in that folder.
 */
import assert from 'node:assert/strict';
import { Chromium } from './chromium';
import { tell } from './stage';
import { buysAndWatches, buysWithoutScripts, looksAround, missesRecommendations, seesPricesOfAWhileAgo } from './story';
import { Tab } from './tab';

async function main([program, origin, pictures]: string[]): Promise<void> {
  if (!program || !origin || !pictures) throw new Error('main.js CHROMIUM ORIGIN PICTURES');
  const chromium = new Chromium(program);
  try {
    const tab = await Tab.open(chromium, origin, pictures);
    await looksAround(tab);
    await buysAndWatches(tab);
    await missesRecommendations(tab, origin);
    await seesPricesOfAWhileAgo(tab);
    assert.deepEqual(tab.errors, [], 'nothing broke in the page that nobody saw');
    await buysWithoutScripts(await Tab.open(chromium, origin, pictures));
    tell(`pictures: ${pictures}`);
  } finally {
    await chromium.close();
  }
}

main(process.argv.slice(2)).then(
  () => process.exit(0),
  (error: Error) => {
    console.error(error.stack ?? error);
    process.exit(1);
  },
);
