/** Pages for when there is nothing to show. They are honest about it, also in their status. */
import { Frame, Unavailable } from '../shop';
import { html } from './html';
import { layout } from './layout';

const WORDS: Record<Unavailable['dependency'], [title: string, text: string]> = {
  catalog: ['The shelves cannot be reached', 'Our catalog does not answer, so there is nothing that we could show you.'],
  checkout: [
    'The till cannot be reached',
    'Your order could not be completed, and your cart is kept. Should it have been taken all the same, it is not taken twice if you try again from here.',
  ],
  orderview: ['Your orders cannot be listed', 'Nothing that you ordered is lost.'],
  cart: ['Your cart cannot be reached', 'Nothing was changed in it, and nothing in it is lost.'],
};

export function unavailablePage(frame: Frame, { dependency, key }: Unavailable): string {
  const [title, text] = WORDS[dependency];
  return layout(frame, title, html`<section class="sorry" data-unavailable="${dependency}"><h1>${title}</h1>
    <p>${text} Please come back in a moment.</p>${key !== undefined ? html`
    <p><a href="/checkout?key=${key}">Back to the checkout</a></p>
    <p><a href="/orders">See whether it was taken</a></p>` : undefined}</section>`);
}

export function messagePage(frame: Frame, title: string, text: string): string {
  return layout(frame, title, html`<section class="sorry"><h1>${title}</h1><p>${text}</p></section>`);
}
