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
