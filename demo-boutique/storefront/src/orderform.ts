/** The checkout form: what was typed into it, and whether that can be an order. */
import { randomUUID } from 'node:crypto';
import { cut } from './body';
import { OrderDetails } from './clients/checkout';

/** What the page shows in the form again. Cards are typed again, and remembered nowhere. */
export interface Typed {
  readonly email: string;
  readonly street: string;
  readonly city: string;
  readonly state: string;
  readonly country: string;
  readonly zip: string;
}

/** So that nobody has to make up an address to see the shop work. */
export const EXAMPLE: Typed = {
  email: 'someone@example.com',
  street: '1 Mill Lane',
  city: 'Weir',
  state: 'Riverland',
  country: 'England',
  zip: '12345',
};

export function typed(form: Map<string, string>): Typed {
  const word = (name: string) => cut((form.get(name) ?? '').trim(), 100);
  const [email, street, city] = [word('email'), word('street_address'), word('city')];
  return { email, street, city, state: word('state'), country: word('country'), zip: word('zip_code') };
}

/** The order that the form asks for, or what is wrong with it. */
export function orderDetails(form: Map<string, string>): OrderDetails | string {
  const { email, street, city, state, country, zip } = typed(form);
  const field = (name: string) => (form.get(name) ?? '').trim();
  if (!/^[^\s@]+@[^\s@]+$/.test(email)) return 'There is no e-mail address.';
  if (!street || !city || !country) return 'The address is not complete.';
  if (!/^\d{1,9}$/.test(zip)) return 'A zip code has digits, up to nine.';
  if (!/^[\d -]{12,30}$/.test(field('card_number'))) return 'This is no card number.';
  if (!/^\d{1,2}$/.test(field('card_month')) || !/^\d{4}$/.test(field('card_year'))) return 'The card needs an expiration date.';
  if (!/^\d{3,4}$/.test(field('card_cvv'))) return 'The CVV has three or four digits.';
  return {
    email,
    address: { streetAddress: street, city, state, country, zipCode: Number(zip) },
    creditCard: {
      creditCardNumber: field('card_number'),
      creditCardCvv: Number(field('card_cvv')),
      creditCardExpirationYear: Number(field('card_year')),
      creditCardExpirationMonth: Number(field('card_month')),
    },
    idempotencyKey: keyOr(form.get('idempotency_key')),
  };
}

/** Whoever sends no key, or something else in its place, asks for an order like no other. */
export function keyOr(text: string | null | undefined): string {
  const key = (text ?? '').trim();
  return /^[\w-]{1,64}$/.test(key) ? key : newKey();
}

export function newKey(): string {
  return randomUUID();
}
