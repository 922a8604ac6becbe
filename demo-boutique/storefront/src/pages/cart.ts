import { format } from '../money';
import { CartContent, CartLine } from '../shop';
import { art } from './art';
import { Html, html } from './html';
import { layout } from './layout';

export function cartPage(cart: CartContent): string {
  if (cart.lines.length === 0) {
    return layout(cart, 'Cart', html`<section class="sorry"><h1>Your cart is empty</h1><p><a href="/">Fill it</a>.</p></section>`);
  }
  return layout(cart, 'Cart', html`
    <h1>Your cart</h1>
    <table>
      <thead><tr><td class="spare"></td><th>Product</th><th>Quantity</th><th class="spare">Price</th><th>Total</th></tr></thead>
      <tbody>${cart.lines.map(row)}</tbody>
      <tfoot><tr><td class="spare"></td><td colspan="2">Together</td><td class="spare"></td><td class="price">${format(cart.total)}</td></tr></tfoot>
    </table>
    <div class="next">
      <form action="/cart/empty" method="post"><button>Empty the cart</button></form>
      <a class="buy" href="/checkout">Checkout</a>
    </div>`);
}

function row({ product, quantity, price, total }: CartLine): Html {
  return html`
      <tr><td class="spare">${art(product.picture)}</td><td><a href="/product/${encodeURIComponent(product.id)}">${product.name}</a></td>
        <td>${quantity}</td><td class="spare">${format(price)}</td><td>${format(total)}</td></tr>`;
}
