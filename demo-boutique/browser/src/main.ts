/**
 * The shop's page in a real Chromium: `main.js CHROMIUM ORIGIN PICTURES STORY`.
 *
 * The shop runs already: `all` of it, in the mesh (`unheard`: the same once more, when nobody else looks), or `alone`, with a catalog and nothing else. What is to happen to it is asked for on stdout (see stage.ts), and
 * tests/storefront.rs does it. Pictures of every page are left in that folder.
 */
import assert from 'node:assert/strict';
import { Chromium } from './chromium';
import { tell } from './stage';
import { buysAndWatches, buysWithoutScripts, findsNothing, hearsNothingOfTheSidecar, isAlone, looksAround, missesOneAfterTheOther, missesRecommendations, seesPricesOfAWhileAgo } from './story';
import { Tab } from './tab';

/** As Chromium tells of each page whose status is not 200. */
const NO_ANSWER = /^Failed to load resource: the server responded with a status of (404|422|503) /;

async function main([program, origin, pictures, story]: string[]): Promise<void> {
  if (!program || !origin || !pictures || !story) throw new Error('main.js CHROMIUM ORIGIN PICTURES STORY');
  const chromium = new Chromium(program);
  try {
    const tab = await Tab.open(chromium, origin, pictures);
    if (story === 'alone') return await isAlone(tab);
    if (story === 'unheard') return await hearsNothingOfTheSidecar(tab);
    await looksAround(tab);
    await buysAndWatches(tab);
    await missesRecommendations(tab, origin);
    await seesPricesOfAWhileAgo(tab);
    assert.deepEqual(tab.errors, [], 'nothing broke in the page that nobody saw');
    const patient = await Tab.open(chromium, origin, pictures);
    await findsNothing(patient);
    await missesOneAfterTheOther(patient);
    const unforeseen = patient.errors.filter((error) => !NO_ANSWER.test(error));
    assert.deepEqual(unforeseen, [], 'but for pages that say so in their status');
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
