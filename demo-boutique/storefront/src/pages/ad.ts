import { Ad } from '../clients/ads';
import { Html, html } from './html';

/** @param ad undefined when the ad service does not say. */
export function adBox(ad: Ad | undefined): Html {
  if (!ad) {
    return html`<aside class="ad placeholder" data-part="ads">This space is free just now.</aside>`;
  }
  // Ads lead to pages of this shop, and nowhere else.
  const text = /^\/[\w-][\w/-]*$/.test(ad.redirectUrl) ? html`<a href="${ad.redirectUrl}">${ad.text}</a>` : ad.text;
  return html`<aside class="ad" data-part="ads"><small>Ad</small> ${text}</aside>`;
}
