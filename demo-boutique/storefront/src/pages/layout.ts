/** What all pages have in common. */
import { Frame } from '../shop';
import { BASE_CURRENCY } from '../visit';
import { Html, html } from './html';
import { strip } from './strip';

export function layout(frame: Frame, title: string, content: Html, query = ''): string {
  const { degraded } = frame.visit;
  return `<!doctype html>${
    html`<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>${title} · Weir Boutique</title>
  <link rel="stylesheet" href="/style.css">
  <link rel="icon" href="data:,">
  <script src="/live.js" defer></script>
  <script src="/strip.js" defer></script>
</head>
<body>
  <header>
    <a class="brand" href="/">Weir <b>Boutique</b></a>
    <form class="search" action="/search" role="search">
      <input name="q" type="search" value="${query}" placeholder="Lantern, wool, river…" aria-label="Search products">
    </form>
    ${currencyChoice(frame)}
    <a class="orders" href="/orders">Orders</a>
    <a class="cart" href="/cart">Cart <span class="count">${frame.cartCount ?? '–'}</span></a>
  </header>
  ${degraded.has('currency') ? note(html`Exchange rates are taking a break: prices are ${ofPrices(frame.visit.pricesAsOf)}.`) : undefined}
  ${degraded.has('cart') ? note(html`Your cart cannot be reached just now. Nothing in it is lost.`) : undefined}
  <main>${content}</main>
  <footer>A shop of small services. Whatever breaks, it says so.</footer>
  ${strip(frame.strip.of(frame.visit))}
</body>
</html>
`.text
  }`;
}

function currencyChoice({ visit, currencies }: Frame): Html {
  const options = currencies.map(
    (code) => html`<option${code === visit.currency ? new Html(' selected') : undefined}>${code}</option>`,
  );
  return html`<form class="currency" action="/currency" method="post">
      <select name="currency" aria-label="Currency">${options}</select>
      <button>Set</button>
    </form>`;
}

function ofPrices(then: Date | undefined): Html {
  if (!then) return html`in ${BASE_CURRENCY}`;
  const at = then.toISOString();
  return html`as of <time datetime="${at}" data-prices-as-of>${at.slice(11, 19)} UTC</time>`;
}

function note(text: Html): Html {
  return html`<p class="note" role="status">${text}</p>`;
}
