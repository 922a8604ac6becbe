// How the services are, as of the last second. Without this the strip is as of the page.
const EACH_MS = 1_000;
/** When the shop itself does not answer. */
const AGAIN_MS = 5_000;
const PATIENCE_MS = 2_000;

for (const strip of document.querySelectorAll('[data-sidecar]')) watch(strip);

async function watch(strip) {
  const details = strip.querySelector('details');
  for (;;) {
    // Nobody looks: nobody is asked.
    if (document.hidden) await once(document, 'visibilitychange');
    else if (!details.open) await once(details, 'toggle');
    else {
      const wait = (await refresh(strip)) ? EACH_MS : AGAIN_MS;
      await new Promise((over) => setTimeout(over, wait));
    }
  }
}

function once(target, event) {
  return new Promise((happened) => target.addEventListener(event, happened, { once: true }));
}

async function refresh(strip) {
  try {
    const answer = await fetch('/api/mesh', { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) return false;
    show(strip, await answer.json());
    return true;
  } catch {
    return false;
  }
}

function show(strip, { sidecar, note, dependencies }) {
  strip.dataset.sidecar = sidecar;
  put(strip.querySelector('.quiet'), note);
  for (const { name, source, breaker, words } of dependencies) {
    const tile = strip.querySelector(`[data-dependency="${name}"]`);
    if (!tile) continue;
    if (!['unknown', breaker].includes(tile.dataset.breaker)) put(strip.querySelector('[data-changes]'), `${name}: breaker ${words.breaker}`);
    Object.assign(tile.dataset, { breaker, source });
    for (const [word, text] of Object.entries(words)) put(tile.querySelector(`[data-word="${word}"]`), text);
  }
}

/** Only what has changed: a page that is written anew each second is no fun to read, or to have read out. */
function put(place, text) {
  if (place.textContent !== text) place.textContent = text;
}
