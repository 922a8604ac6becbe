/** Orders as their facts have them: one, and all of a visitor. */
import { Order, Step, TITLES } from '../facts';
import { format, Money } from '../money';
import { Frame, OrderDetail, OrderLine, OrderList } from '../shop';
import { Html, html } from './html';
import { layout } from './layout';

export function orderPage(detail: OrderDetail): string {
  const { orderId, order, lines, steps, asOfSeq } = detail;
  const status = order?.status ?? 'PLACED';
  const isOver = status === 'CONFIRMED' || status === 'CANCELLED';
  const title = TITLES[status];
  return layout(detail, title, html`
    <section class="order" data-order="${orderId}" data-state="${order ? status : 'UNKNOWN'}">
      <h1>${title}</h1>
      <p data-said>${text(order)}</p>
      ${degradedNote(detail)}
      ${timeline(orderId, steps, isOver)}
      ${order ? orderLines(lines, order.total) : undefined}
      <p class="hint">Order ${orderId}, ${asOf(asOfSeq)}. <a href="/orders/${orderId}">Look again</a> · <a href="/orders">All your orders</a></p>
    </section>`);
}

function text(order: Order | undefined): Html {
  switch (order?.status) {
    case 'PAID':
      return html`It is paid, and will be sent.`;
    case 'SHIPPED':
    case 'CONFIRMED':
      return html`It is paid and on its way, as parcel <b data-tracking>${order.trackingId}</b>.`;
    case 'CANCELLED':
      return html`${order.reason ? html`It came to nothing: ${order.reason}.` : 'It came to nothing.'} ${
        order.transactionId && order.refunded ? 'Your money is on its way back.' : undefined
      }`;
    default:
      return html`It is written down and will not be lost; paying and sending come next.`;
  }
}

function degradedNote({ visit, order }: OrderDetail): Html | undefined {
  if (!visit.degraded.has('orderview')) return undefined;
  return html`<p class="note" role="status" data-part="orderview">${
    order
      ? 'Our order desk is behind: this comes straight from the log.'
      : 'Nobody who knows more can be reached just now. An order that was accepted is kept.'
  }</p>`;
}

/** The chips of what happened. A browser with scripts adds those that come. */
export function timeline(orderId: string, steps: readonly Step[], isOver = false): Html {
  return html`<ol class="timeline" aria-label="What happened to the order" aria-live="polite" aria-relevant="additions" ${
    isOver ? undefined : html`data-timeline="${orderId}"`
  }>${steps.map(
    ({ name, note }) => html`<li data-step="${name}">${name}${note ? html` <small>${note}</small>` : undefined}</li>`,
  )}</ol>`;
}

export function orderLines(lines: readonly OrderLine[], total: Money | null, shipping?: Money): Html {
  return html`<table>
        <tbody>${lines.map(({ name, quantity, cost }) => html`
        <tr><td>${quantity} × ${name}</td><td class="price">${price(cost)}</td></tr>`)}${
          shipping ? html`<tr><td>Shipping</td><td class="price">${price(shipping)}</td></tr>` : undefined
        }</tbody>
        <tfoot><tr><td>Together, with shipping</td><td class="price" data-total>${price(total)}</td></tr></tfoot>
      </table>`;
}

export function ordersPage(list: OrderList): string {
  if (list.orders.length === 0) {
    return layout(list, 'Orders', html`<section class="sorry"><h1>No orders yet</h1><p>As far as is known ${asOf(list.asOfSeq)}. <a href="/">Find something</a>.</p></section>`);
  }
  return layout(list, 'Orders', html`
    <h1>Your orders</h1>
    <table>
      <thead><tr><th>Order</th><th class="spare">Things</th><th>State</th><th>Total</th></tr></thead>
      <tbody>${list.orders.map(row)}</tbody>
    </table>
    <p class="hint">The latest, ${asOf(list.asOfSeq)}. <a href="/orders">Look again</a></p>`);
}

function row({ orderId, items, status, total }: Order): Html {
  const things = items.reduce((count, { quantity }) => count + quantity, 0);
  return html`
      <tr data-order="${orderId}" data-state="${status}"><td><a href="/orders/${orderId}">${orderId.slice(0, 8)}</a></td><td class="spare">${things}</td>
        <td>${TITLES[status]}</td><td class="price">${price(total)}</td></tr>`;
}

export function noSuchOrderPage(frame: Frame): string {
  return layout(frame, 'Not found', html`
    <section class="sorry"><h1>You have no such order</h1><p><a href="/orders">Look at all that you have</a>.</p></section>`);
}

function asOf(seq: number | undefined): Html {
  return seq === undefined ? html`as of when it was placed` : html`<span data-as-of="${seq}">as of fact ${seq}</span>`;
}

function price(money: Money | null): string {
  return money ? format(money) : '–';
}
