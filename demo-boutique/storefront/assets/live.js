// What happens in the shop, as it happens and while somebody looks: a browser has six connections to a host, and a tab that
// nobody sees would keep one of them. The shop works without this.
const SOON_MS = 5_000;
const TRIES_MAX = 20;

/** Tells what comes, until `told` says that it was the last; `lost` is for when nothing comes. */
function follow(url, told, lost = () => {}) {
  let events, again, tries, over;
  function open() {
    events = new EventSource(url);
    events.onmessage = ({ data }) => {
      tries = 0;
      over = told(JSON.parse(data));
      if (over) events.close(); // else the browser would ask again
    };
    events.onerror = () => {
      lost();
      // It comes back by itself from a stream that broke, and not from one that was refused.
      if (events.readyState === EventSource.CLOSED && tries++ < TRIES_MAX) again = setTimeout(open, SOON_MS);
    };
  }
  function look() {
    clearTimeout(again);
    events?.close();
    lost();
    tries = 0;
    if (!document.hidden && !over) open();
  }
  document.addEventListener('visibilitychange', look);
  look();
}

// Spot prices.
const shown = new Map();
for (const place of document.querySelectorAll('[data-live]')) {
  shown.set(place.dataset.live, { place, before: undefined });
}
if (shown.size > 0) follow('/live', reprice, unprice);

function reprice({ id, price }) {
  const spot = shown.get(id);
  if (!spot) return;
  const now = Number(price.replace(/[^\d.]/g, ''));
  const arrow = spot.before === undefined || now === spot.before ? '' : now > spot.before ? ' ▲' : ' ▼';
  spot.place.textContent = `spot ${price}${arrow}`;
  spot.before = now;
}

/** A price of a while ago would look like that of now. */
function unprice() {
  for (const spot of shown.values()) {
    spot.place.textContent = '';
    spot.before = undefined;
  }
}

// The facts of an order. The page shows them without this, when it is loaded again.
for (const timeline of document.querySelectorAll('[data-timeline]')) {
  follow(`/live/orders/${timeline.dataset.timeline}`, ({ step, note, title, last }) => {
    // All are told from the beginning, and the page has some of them.
    if (!timeline.querySelector(`[data-step="${step}"]`)) {
      timeline.append(chip(step, note));
      if (title) retitle(timeline.closest('[data-order]'), title);
    }
    return last;
  });
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
