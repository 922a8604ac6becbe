/** Which request gets which answer: the table of contents of this service. */
import { IncomingMessage } from 'node:http';
import { ASSETS } from './assets';
import { BadRequest, cut, fields } from './body';
import { CartItem } from './clients/cart';
import { format } from './money';
import { EXAMPLE, keyOr, newKey, orderDetails, typed } from './orderform';
import { cartPage } from './pages/cart';
import { checkoutPage, placedPage } from './pages/checkout';
import { homePage, searchPage } from './pages/home';
import { noSuchOrderPage, orderPage, ordersPage } from './pages/order';
import { noSuchProductPage, productPage } from './pages/product';
import { stripJson } from './pages/strip';
import { messagePage, unavailablePage } from './pages/unavailable';
import { json, page, Reply, reply, seeOther, text } from './reply';
import { Offer, Shop, Unavailable } from './shop';
import { code, cookie, Visit } from './visit';

/** How soon a visitor may try again after a 503, in seconds. */
const RETRY_AFTER = { 'retry-after': '2' };

export async function answer(shop: Shop, request: IncomingMessage): Promise<Reply> {
  const url = urlOf(request);
  if (!url) return text('this is no path\n', 400);
  const asset = ASSETS.get(url.pathname);
  if (asset) return reply(200, asset.type, asset.body, { 'cache-control': 'max-age=60' });

  const visit = Visit.from(request, url);
  shop.strip.refresh();
  const isApi = url.pathname.startsWith('/api/');
  const made = await route(shop, visit, request, url).catch((error: unknown) => {
    if (error instanceof Unavailable) {
      return isApi
        ? json({ error: error.message }, 503, RETRY_AFTER)
        : page(unavailablePage(shop.bareFrame(visit), error), 503, RETRY_AFTER);
    }
    if (!(error instanceof BadRequest)) throw error;
    return isApi
      ? json({ error: error.message }, error.status)
      : page(messagePage(shop.bareFrame(visit), 'That did not work', error.message), error.status);
  });
  shop.strip.note(visit);
  return withVisit(visit, made, request);
}

async function route(shop: Shop, visit: Visit, request: IncomingMessage, url: URL): Promise<Reply> {
  const method = request.method === 'HEAD' ? 'GET' : request.method;
  const query = cut((url.searchParams.get('q') ?? '').trim(), 100);
  switch (`${method} ${url.pathname}`) {
    case 'GET /':
      return page(homePage(await shop.home(visit)));
    case 'GET /search':
      return query ? page(searchPage(await shop.search(visit, query), query)) : seeOther('/');
    case 'GET /cart':
      return page(cartPage(await shop.cartContent(visit)));
    case 'POST /cart':
      await add(shop, visit, request);
      return seeOther('/cart');
    case 'POST /cart/empty':
      await shop.emptyCart(visit);
      return seeOther('/cart');
    case 'GET /checkout': {
      const cart = await shop.cartContent(visit);
      const key = url.searchParams.get('key');
      if (cart.lines.length > 0) return page(checkoutPage(cart, EXAMPLE, keyOr(key)));
      // With a key there was an order, and it may be what emptied the cart: who fills it again pays for both.
      return seeOther(key === null ? '/cart' : '/orders');
    }
    case 'POST /checkout':
      return ordered(shop, visit, await fields(request));
    case 'GET /orders':
      return page(ordersPage(await shop.orders(visit)));
    case 'POST /currency':
      return chosen(shop, visit, request);
    case 'GET /api/products': {
      const offers = await shop.offers(visit, query);
      return json({ products: offers.map(offerJson), degraded: [...visit.degraded], pricesAsOf: visit.pricesAsOf });
    }
    case 'GET /api/cart': {
      const { lines, total } = await shop.cartContent(visit);
      const items = lines.map((line) => ({ ...offerJson(line), quantity: line.quantity }));
      return json({ items, total, degraded: [...visit.degraded], pricesAsOf: visit.pricesAsOf });
    }
    case 'GET /api/mesh':
      return json(stripJson(await shop.strip.now()));
    case 'POST /api/cart':
      await add(shop, visit, request);
      return json({ added: true }, 201);
    case 'DELETE /api/cart':
      await shop.emptyCart(visit);
      return json({ emptied: true });
    case 'POST /api/checkout': {
      const details = orderDetails(await fields(request));
      if (typeof details === 'string') throw new BadRequest(details);
      const placed = await shop.placeOrder(visit, details);
      return 'refused' in placed ? json({ error: placed.refused }, 422) : json(placed, 201);
    }
  }
  const product = /^\/product\/([\w-]{1,64})$/.exec(url.pathname)?.[1];
  if (method === 'GET' && product) {
    const detail = await shop.product(visit, product);
    return detail ? page(productPage(detail)) : page(noSuchProductPage(shop.bareFrame(visit)), 404);
  }
  const order = /^\/orders\/([\w-]{1,64})$/.exec(url.pathname)?.[1];
  if (method === 'GET' && order) {
    const detail = await shop.order(visit, order);
    return detail ? page(orderPage(detail)) : page(noSuchOrderPage(shop.bareFrame(visit)), 404);
  }
  throw new BadRequest('There is no such page.', 404);
}

async function add(shop: Shop, visit: Visit, request: IncomingMessage): Promise<void> {
  const refused = await shop.addToCart(visit, cartItem(await fields(request)));
  if (refused !== undefined) throw new BadRequest(sentence(refused), 422);
}

/** The order's page is the answer to the form: sent again, the form has the same key and is answered the same. */
async function ordered(shop: Shop, visit: Visit, form: Map<string, string>): Promise<Reply> {
  const details = orderDetails(form);
  const placed = typeof details === 'string' ? { refused: details } : await shop.placeOrder(visit, details);
  if (!('refused' in placed)) return page(placedPage(await shop.orderOutcome(visit, placed)));

  const cart = await shop.cartContent(visit);
  if (cart.lines.length === 0) return seeOther('/cart');
  return page(checkoutPage(cart, typed(form), newKey(), sentence(placed.refused)), 422);
}

function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1) + (text.endsWith('.') ? '' : '.');
}

/** Undefined for a target that is no path, like that of OPTIONS *. */
function urlOf(request: IncomingMessage): URL | undefined {
  try {
    return new URL(request.url ?? '', 'http://storefront');
  } catch {
    return undefined;
  }
}

async function chosen(shop: Shop, visit: Visit, request: IncomingMessage): Promise<Reply> {
  const currency = code((await fields(request)).get('currency'));
  if (!currency) throw new BadRequest('A currency has three capital letters.');
  if (!(await shop.hasCurrency(visit, currency))) throw new BadRequest(`${currency} is no currency of this shop.`);
  return seeOther('/', { 'set-cookie': cookie('currency', currency, request) });
}

function cartItem(form: Map<string, string>): CartItem {
  const productId = form.get('product_id') ?? '';
  const quantity = Number(form.get('quantity') ?? '1');
  if (!/^[\w-]{1,64}$/.test(productId)) throw new BadRequest('product_id is missing or no such thing.');
  if (!Number.isInteger(quantity) || quantity < 1 || quantity > 10) throw new BadRequest('quantity is 1 to 10.');
  return { productId, quantity };
}

function offerJson({ product, price }: Offer): object {
  const { id, name, description, picture, categories } = product;
  return { id, name, description, picture, categories, price, priceText: format(price) };
}

/** A new visitor gets a session; whoever measures sees which parts were replaced. */
function withVisit(visit: Visit, made: Reply, request: IncomingMessage): Reply {
  const headers = { ...made.headers };
  if (visit.isNew) headers['set-cookie'] = [headers['set-cookie'] ?? [], cookie('session', visit.user, request)].flat();
  if (visit.degraded.size > 0) headers['boutique-degraded'] = [...visit.degraded].join(', ');
  return { ...made, headers };
}
