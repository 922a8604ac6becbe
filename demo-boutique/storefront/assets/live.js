// Spot prices, as they come. The shop works without this.
const shown = new Map();
for (const place of document.querySelectorAll('[data-live]')) {
  shown.set(place.dataset.live, { place, before: undefined });
}
if (shown.size > 0) {
  new EventSource('/live').onmessage = ({ data }) => {
    const { id, price } = JSON.parse(data);
    const spot = shown.get(id);
    if (!spot) return;
    const now = Number(price.replace(/[^\d.]/g, ''));
    const arrow = spot.before === undefined || now === spot.before ? '' : now > spot.before ? ' ▲' : ' ▼';
    spot.place.textContent = `spot ${price}${arrow}`;
    spot.before = now;
  };
}

// The facts of an order, as they come. The page shows them without this, when it is loaded again.
const SOON_MS = 5_000;
const TRIES_MAX = 20;

function follow(timeline, tries = 0) {
  const events = new EventSource(`/live/orders/${timeline.dataset.timeline}`);
  events.onmessage = ({ data }) => {
    tries = 0;
    const { step, note, title, last } = JSON.parse(data);
    // All are told from the beginning, and the page has some of them.
    if (!timeline.querySelector(`[data-step="${step}"]`)) {
      timeline.append(chip(step, note));
      if (title) retitle(timeline.closest('[data-order]'), title);
    }
    if (last) events.close(); // else the browser would ask again
  };
  events.onerror = () => {
    // It comes back by itself from a stream that broke, and not from one that was refused.
    if (events.readyState === EventSource.CLOSED && tries < TRIES_MAX) setTimeout(follow, SOON_MS, timeline, tries + 1);
  };
}

/** What else the page said of how the order stands is old now. */
function retitle(order, title) {
  order.querySelector('h1').textContent = title;
  order.querySelector('[data-said]')?.remove();
}

function chip(step, note) {
  const chip = document.createElement('li');
  chip.dataset.step = step;
  chip.textContent = step;
  if (note) {
    const small = document.createElement('small');
    small.textContent = note;
    chip.append(' ', small);
  }
  return chip;
}

for (const timeline of document.querySelectorAll('[data-timeline]')) follow(timeline);
