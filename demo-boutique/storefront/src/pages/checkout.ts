/** From the cart to the order: a form, and what came of it. */
import { PLACED_STEP } from '../facts';
import { format } from '../money';
import { Typed } from '../orderform';
import { CartContent, OrderOutcome } from '../shop';
import { Html, html } from './html';
import { layout } from './layout';
import { orderLines, timeline } from './order';

/** @param wrong what was wrong with the form that was sent before, if one was. */
export function checkoutPage(cart: CartContent, typed: Typed, key: string, wrong?: string): string {
  return layout(cart, 'Checkout', html`
    <h1>Checkout</h1>
    ${wrong === undefined ? undefined : html`<p class="note" role="alert" data-refused>${wrong} Nothing was ordered, and your cart is kept.</p>`}
    <table>
      <tbody>${cart.lines.map(({ product, quantity, total }) => html`
      <tr><td>${quantity} × ${product.name}</td><td class="price">${format(total)}</td></tr>`)}</tbody>
      <tfoot><tr><td>Together, without shipping</td><td class="price">${format(cart.total)}</td></tr></tfoot>
    </table>
    <form class="checkout" action="/checkout" method="post">
      <input type="hidden" name="idempotency_key" value="${key}">
      <fieldset><legend>Where to</legend>
        ${field('E-mail', 'email', typed.email, 'type="email" autocomplete="email" required')}
        ${field('Street', 'street_address', typed.street, 'autocomplete="street-address" required')}
        ${field('City', 'city', typed.city, 'autocomplete="address-level2" required')}
        ${field('State', 'state', typed.state, 'autocomplete="address-level1"')}
        ${field('Country', 'country', typed.country, 'autocomplete="country-name" required')}
        ${field('Zip code', 'zip_code', typed.zip, 'inputmode="numeric" pattern="[0-9]{1,9}" required')}
      </fieldset>
      <fieldset><legend>What with</legend>
        ${field('Card number', 'card_number', '4432-8015-6152-0454', 'inputmode="numeric" autocomplete="off" required')}
        ${field('Month', 'card_month', '1', 'type="number" min="1" max="12" required')}
        ${field('Year', 'card_year', '2039', 'type="number" min="2000" max="2099" required')}
        ${field('CVV', 'card_cvv', '672', 'inputmode="numeric" pattern="[0-9]{3,4}" autocomplete="off" required')}
        <p class="hint">A shop for show: this card is nobody's.</p>
      </fieldset>
      <button class="buy">Order and pay</button>
    </form>`);
}

function field(label: string, name: string, value: string, attributes: string): Html {
  return html`<label>${label} <input name="${name}" value="${value}" maxlength="100" ${new Html(attributes)}></label>`;
}

/** What checkout answered. An order that is only accepted has facts, and a page of its own to come back to. */
export function placedPage(outcome: OrderOutcome): string {
  const { placed, lines } = outcome;
  const { orderId, shippingTrackingId, shippingCost, total } = placed.order;
  const [title, text]: [string, Html] =
    placed.state === 'CONFIRMED'
      ? ['Thank you!', html`It is paid and on its way, as parcel <b data-tracking>${shippingTrackingId}</b>.`]
      : ['Order accepted, payment pending', html`It is written down and will not be lost; paying and sending come next.`];
  return layout(outcome, title, html`
    <section class="order" data-order="${orderId}" data-state="${placed.state}">
      <h1>${title}</h1>
      <p data-said>${text}</p>
      ${placed.state === 'ACCEPTED' ? timeline(orderId, [PLACED_STEP]) : undefined}
      ${orderLines(lines, total, shippingCost)}
      <p class="hint">Order ${orderId}${placed.state === 'ACCEPTED' ? html`. <a href="/orders/${orderId}">What became of it</a>` : undefined}</p>
    </section>`);
}
