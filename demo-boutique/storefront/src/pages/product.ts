import { Product } from '../clients/catalog';
import { format } from '../money';
import { Frame, ProductDetail } from '../shop';
import { adBox } from './ad';
import { art } from './art';
import { Html, html } from './html';
import { layout } from './layout';

export function productPage(detail: ProductDetail): string {
  const { product, price } = detail.offer;
  return layout(detail, product.name, html`
    <article class="product" data-product="${product.id}">
      ${art(product.picture)}
      <div>
        <h1>${product.name}</h1>
        <p class="price">${format(price)} <span class="live" data-live="${product.id}"></span></p>
        <p>${product.description}</p>
        <p class="tags">${product.categories.map((tag) => html`<a href="/search?q=${encodeURIComponent(tag)}">${tag}</a> `)}</p>
        <form action="/cart" method="post">
          <input type="hidden" name="product_id" value="${product.id}">
          <label>How many <input name="quantity" type="number" min="1" max="10" value="1"></label>
          <button class="buy">Put in the cart</button>
        </form>
      </div>
    </article>
    ${recommendations(detail.recommended)}
    ${adBox(detail.ad)}`);
}

export function noSuchProductPage(frame: Frame): string {
  return layout(frame, 'Not found', html`
    <section class="sorry"><h1>Nobody sells that here</h1><p><a href="/">Look at everything that we have</a>.</p></section>`);
}

function recommendations(products: Product[] | undefined): Html {
  if (!products) {
    return html`<section class="placeholder" data-part="recommendations">
      <h2>You may also like</h2><p>Our recommendations are having a rest. Everything else works as always.</p></section>`;
  }
  if (products.length === 0) return html``;
  return html`<section data-part="recommendations"><h2>You may also like</h2><div class="grid small">${products.map(
    (product) => html`
      <a class="card" href="/product/${encodeURIComponent(product.id)}">${art(product.picture)}<span class="name">${product.name}</span></a>`,
  )}</div></section>`;
}
