/**
 * Gathers what a page shows. Only the catalog is indispensable: what else cannot be had is
 * replaced here by something honest, and the visit remembers it.
 */
import { ServiceError, status } from '@grpc/grpc-js';
import { Ad, Ads } from './clients/ads';
import { Cart, CartItem } from './clients/cart';
import { Catalog, Product } from './clients/catalog';
import { Checkout, OrderDetails, PlacedOrder, RefusedOrder } from './clients/checkout';
import { Currency } from './clients/currency';
import { OrderLog } from './clients/orderlog';
import { OrderView } from './clients/orderview';
import { Recommendation } from './clients/recommendation';
import { Order, orderOf, ownerOf, Step, stepOf, stepsOf } from './facts';
import { Money, payable, sum, times } from './money';
import { newKey } from './orderform';
import { Rates } from './rates';
import { Strip } from './strip';
import { watched } from './trouble';
import { BASE_CURRENCY, Part, Visit } from './visit';

export interface Offer {
  readonly product: Product;
  readonly price: Money;
}

export interface CartLine extends Offer {
  readonly quantity: number;
  readonly total: Money;
}

/** What every page has around its own content. */
export interface Frame {
  readonly visit: Visit;
  readonly strip: Strip;
  /** Without the currency service, there is no choice but the one in use. */
  readonly currencies: string[];
  /** Undefined when the cart service does not say. */
  readonly cartCount: number | undefined;
}

export interface Listing extends Frame {
  readonly offers: Offer[];
}

export interface Home extends Listing {
  /** Undefined when the ad service does not say. */
  readonly ad: Ad | undefined;
}

export interface ProductDetail extends Frame {
  readonly offer: Offer;
  /** Undefined when the recommendation service does not say. */
  readonly recommended: Product[] | undefined;
  readonly ad: Ad | undefined;
}

export interface CartContent extends Frame {
  readonly lines: CartLine[];
  readonly total: Money;
}

export interface OrderOutcome extends Frame {
  readonly placed: PlacedOrder;
  readonly lines: OrderLine[];
}

export interface OrderLine {
  readonly name: string;
  readonly quantity: number;
  readonly cost: Money | null;
}

/** An order as it stands. */
export interface OrderDetail extends Frame {
  readonly orderId: string;
  /** Undefined when nobody can be reached who knows more than that it was accepted. */
  readonly order: Order | undefined;
  readonly lines: OrderLine[];
  readonly steps: Step[];
  /** The latest fact that this includes; undefined when nobody says. */
  readonly asOfSeq: number | undefined;
}

export interface OrderList extends Frame {
  readonly orders: Order[];
  readonly asOfSeq: number;
}

type Known = Pick<OrderDetail, 'order' | 'steps' | 'asOfSeq'>;

const ORDERS_SHOWN = 20;

type Needed = 'catalog' | 'cart' | 'checkout' | 'orderview';

/** The page has nothing to show without this dependency. */
export class Unavailable extends Error {
  /** @param key of the order that was asked for: with it, it may be asked for again. */
  constructor(
    readonly dependency: Needed,
    readonly key?: string,
  ) {
    super(`${dependency} is unavailable`);
  }
}

export class Shop {
  readonly #rates = new Rates();

  constructor(
    private readonly catalog: Catalog,
    private readonly currency: Currency,
    private readonly cart: Cart,
    private readonly recommendation: Recommendation,
    private readonly ads: Ads,
    private readonly checkout: Checkout,
    private readonly orderview: OrderView,
    private readonly orderlog: OrderLog,
    readonly strip: Strip,
  ) {}

  async home(visit: Visit): Promise<Home> {
    const [frame, offers, ad] = await Promise.all([this.#frame(visit), this.offers(visit), this.#ad(visit, [])]);
    return { ...frame, offers, ad };
  }

  /** Everything on sale, or what matches the query. */
  async offers(visit: Visit, query = ''): Promise<Offer[]> {
    const { traceparent } = visit;
    const found = query ? this.catalog.search(query, traceparent) : this.catalog.list(traceparent);
    return this.#priced(visit, await needed(visit, 'catalog', found));
  }

  async search(visit: Visit, query: string): Promise<Listing> {
    const [frame, offers] = await Promise.all([this.#frame(visit), this.offers(visit, query)]);
    return { ...frame, offers };
  }

  /** Undefined for a product that nobody sells. */
  async product(visit: Visit, id: string): Promise<ProductDetail | undefined> {
    const [frame, product, recommended] = await Promise.all([
      this.#frame(visit),
      needed(visit, 'catalog', this.#find(visit, id)),
      this.#recommended(visit, [id]),
    ]);
    if (!product) return undefined;
    const [[offer], ad] = await Promise.all([this.#priced(visit, [product]), this.#ad(visit, product.categories)]);
    return { ...frame, offer: offer!, recommended, ad };
  }

  async cartContent(visit: Visit): Promise<CartContent> {
    const items = await needed(visit, 'cart', this.cart.get(visit.user, visit.traceparent));
    const [frame, lines] = await Promise.all([this.#frame(visit, items), this.#lines(visit, items)]);
    const currency = lines[0]?.total.currencyCode ?? visit.currency;
    return { ...frame, lines, total: sum(currency, lines.map((line) => line.total)) };
  }

  /** Whether prices can be had in it. Where nobody says which there are, any may be one. */
  async hasCurrency(visit: Visit, currency: string): Promise<boolean> {
    const known = await spared(visit, 'currency', this.currency.list(visit.traceparent));
    return known?.includes(currency) ?? true;
  }

  /** Why it was not added, if nobody sells it or the cart would not have it. */
  async addToCart(visit: Visit, item: CartItem): Promise<string | undefined> {
    // Where the catalog does not say, it may be: the cart's page shows what is sold by then.
    const isSold = await watched('catalog', this.#find(visit, item.productId)).then(Boolean, () => true);
    if (!isSold) return 'nobody sells that here';
    return needed(visit, 'cart', this.cart.add(visit.user, item, visit.traceparent));
  }

  async emptyCart(visit: Visit): Promise<void> {
    await needed(visit, 'cart', this.cart.empty(visit.user, visit.traceparent));
  }

  /** Orders what is in the cart. */
  async placeOrder(visit: Visit, details: OrderDetails): Promise<PlacedOrder | RefusedOrder> {
    const { user, currency, traceparent } = visit;
    let key = details.idempotencyKey;
    const placing = this.checkout.place(user, currency, details, traceparent).catch((error: ServiceError) => {
      if (error.code === status.ABORTED) key = newKey(); // it was taken back, and that one is over
      throw error;
    });
    return needed(visit, 'checkout', placing).catch(() => {
      throw new Unavailable('checkout', key);
    });
  }

  /** What the visitor sees of an order: that it was placed is not hidden because something else fails. */
  async orderOutcome(visit: Visit, placed: PlacedOrder): Promise<OrderOutcome> {
    const [frame, names] = await Promise.all([this.#frame(visit), this.#names(visit)]);
    const lines = placed.order.items.map(({ item: { productId, quantity }, cost }) => ({
      name: names.get(productId) ?? productId,
      quantity,
      cost,
    }));
    return { ...frame, placed, lines };
  }

  /** Undefined for an order that this visitor does not have. */
  async order(visit: Visit, orderId: string): Promise<OrderDetail | undefined> {
    const [frame, names, known] = await Promise.all([this.#frame(visit), this.#names(visit), this.#known(visit, orderId)]);
    if (!known) return undefined;
    const items = known.order?.items ?? [];
    const lines = items.map(({ productId, quantity, cost }) => ({ name: names.get(productId) ?? productId, quantity, cost }));
    return { ...frame, orderId, ...known, lines };
  }

  /** The visitor's latest. */
  async orders(visit: Visit): Promise<OrderList> {
    const list = needed(visit, 'orderview', this.orderview.list(visit.user, ORDERS_SHOWN, visit.traceparent));
    const [frame, { orders, asOfSeq }] = await Promise.all([this.#frame(visit), list]);
    return { ...frame, orders, asOfSeq };
  }

  /** What a page that failed still has around it: nothing that could fail again. */
  bareFrame(visit: Visit): Frame {
    return { visit, strip: this.strip, currencies: [visit.currency], cartCount: undefined };
  }

  /** Of all products by id; where it has none, ids have to do. */
  async #names(visit: Visit): Promise<Map<string, string>> {
    const known = await this.catalog.list(visit.traceparent).catch((): Product[] => []);
    return new Map(known.map(({ id, name }) => [id, name]));
  }

  /**
   * An order as orderview has it. Where that is behind, or gone, the few facts of the order are read in the log
   * itself, and where that is gone too, all that can be said is that accepted orders are kept.
   */
  async #known(visit: Visit, orderId: string): Promise<Known | undefined> {
    const { user, traceparent } = visit;
    const view = await watched('orderview', this.orderview.get(orderId, traceparent)).catch(() => undefined);
    if (view?.order) {
      visit.saw('orderview', 'live');
      const { order, asOfSeq } = view;
      return order.userId === user ? { order, steps: stepsOf(order), asOfSeq } : undefined;
    }
    const facts = await watched('orderlog', this.orderlog.read(orderId, traceparent)).catch(() => undefined);
    if (facts && ownerOf(facts) !== user) return undefined;
    visit.degraded.add('orderview');
    visit.saw('orderview', 'fallback');
    visit.saw('orderlog', facts ? 'live' : 'fallback');
    if (!facts) return { order: undefined, steps: [], asOfSeq: view?.asOfSeq };
    const steps = facts.map(stepOf).filter((step) => step !== undefined) as Step[];
    return { order: orderOf(facts), steps, asOfSeq: facts.at(-1)!.seq };
  }

  async #frame(visit: Visit, items?: CartItem[]): Promise<Frame> {
    const { user, traceparent } = visit;
    const [currencies, cart] = await Promise.all([
      spared(visit, 'currency', this.currency.list(traceparent)),
      items ?? spared(visit, 'cart', this.cart.get(user, traceparent)),
    ]);
    return {
      visit,
      strip: this.strip,
      currencies: currencies ?? [visit.currency],
      cartCount: cart?.reduce((count, item) => count + item.quantity, 0),
    };
  }

  /**
   * In the visitor's currency, as of now or as of a while ago, or all of them in the base currency: never a mixture.
   */
  async #priced(visit: Visit, products: Product[]): Promise<Offer[]> {
    const list = products.map((product) => product.priceUsd);
    let prices: Money[] | undefined = list;
    if (visit.currency !== BASE_CURRENCY && list.length > 0) {
      prices = await spared(visit, 'currency', this.currency.convert(list, visit.currency, visit.traceparent));
      if (!prices) prices = this.#recalled(visit, products);
      else if (prices.length > 0) this.#rates.remember(products, prices);
    }
    return products.map((product, i) => ({ product, price: payable(prices?.[i] ?? product.priceUsd) }));
  }

  #recalled(visit: Visit, products: Product[]): Money[] | undefined {
    const then = this.#rates.recall(products, visit.currency);
    if (!then) return undefined;
    visit.saw('currency', 'cached');
    visit.pricesAsOf = then.asOf;
    return then.prices;
  }

  async #find(visit: Visit, id: string): Promise<Product | undefined> {
    try {
      return await this.catalog.get(id, visit.traceparent);
    } catch (error) {
      if ((error as ServiceError).code === status.NOT_FOUND) return undefined;
      throw error;
    }
  }

  async #ad(visit: Visit, categories: readonly string[]): Promise<Ad | undefined> {
    const ads = await spared(visit, 'ads', this.ads.get(categories, visit.traceparent));
    return ads?.[0];
  }

  async #recommended(visit: Visit, ids: string[]): Promise<Product[] | undefined> {
    const { user, traceparent } = visit;
    return spared(
      visit,
      'recommendation',
      this.recommendation.list(user, ids, traceparent).then(async (recommended) => {
        const products = await this.catalog.list(traceparent);
        return products.filter((product) => recommended.includes(product.id));
      }),
    );
  }

  /** What is no longer sold silently leaves the cart's page. */
  async #lines(visit: Visit, items: CartItem[]): Promise<CartLine[]> {
    if (items.length === 0) return [];
    const products = new Map(
      (await needed(visit, 'catalog', this.catalog.list(visit.traceparent))).map((product) => [product.id, product]),
    );
    const sold = items.filter((item) => products.has(item.productId));
    const offers = await this.#priced(visit, sold.map((item) => products.get(item.productId)!));
    return offers.map((offer, i) => {
      const { quantity } = sold[i]!;
      return { ...offer, quantity, total: times(offer.price, quantity) };
    });
  }
}

/** The answer, or nothing and a note of what is missing. */
async function spared<T>(visit: Visit, part: Part, call: Promise<T>): Promise<T | undefined> {
  try {
    const answer = await watched(part, call);
    visit.saw(part, 'live');
    return answer;
  } catch {
    visit.degraded.add(part);
    visit.saw(part, 'fallback');
    return undefined;
  }
}

async function needed<T>(visit: Visit, dependency: Needed, call: Promise<T>): Promise<T> {
  try {
    const answer = await watched(dependency, call);
    visit.saw(dependency, 'live');
    return answer;
  } catch {
    visit.saw(dependency, 'missing');
    throw new Unavailable(dependency);
  }
}
