/** What all pages have in common. */
import { Frame } from '../shop';
import { BASE_CURRENCY } from '../visit';
import { Html, html } from './html';

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
  ${degraded.has('currency') ? note(`Exchange rates are taking a break: prices are in ${BASE_CURRENCY}.`) : undefined}
  ${degraded.has('cart') ? note('Your cart cannot be reached just now. Nothing in it is lost.') : undefined}
  <main>${content}</main>
  <footer>A shop of small services. Whatever breaks, it says so.</footer>
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

function note(text: string): Html {
  return html`<p class="note" role="status">${text}</p>`;
}
