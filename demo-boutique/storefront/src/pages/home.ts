import { format } from '../money';
import { Home, Listing, Offer } from '../shop';
import { adBox } from './ad';
import { art } from './art';
import { Html, html } from './html';
import { layout } from './layout';

export function homePage(home: Home): string {
  return layout(home, 'Goods from the river', html`
    <section class="hero"><h1>Goods from the river</h1><p>Made to get wet, and to be handed down.</p></section>
    <div class="grid">${home.offers.map(card)}</div>
    ${adBox(home.ad)}`);
}

export function searchPage(found: Listing, query: string): string {
  const content = found.offers.length > 0
    ? html`<h1>${found.offers.length} for “${query}”</h1><div class="grid">${found.offers.map(card)}</div>`
    : html`<h1>Nothing for “${query}”</h1><p>The river brings what it brings. <a href="/">Look at everything</a>?</p>`;
  return layout(found, query, content, query);
}

function card({ product, price }: Offer): Html {
  return html`
      <a class="card" href="/product/${encodeURIComponent(product.id)}" data-product="${product.id}">
        ${art(product.picture)}
        <span class="name">${product.name}</span>
        <span class="price">${format(price)}</span>
        <span class="live" data-live="${product.id}"></span>
      </a>`;
}
