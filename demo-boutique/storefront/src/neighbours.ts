/** For tests: stand-ins of the services that the storefront calls, with faults of their own. */
import { boutiqueService, Faults, listen, LOOPBACK, Refusal, serviceOf, unary } from '@boutique/chassis';
import { Server, ServerWritableStream, ServiceDefinition, status, UntypedServiceImplementation } from '@grpc/grpc-js';
import { Ads } from './clients/ads';
import { Cart, CartItem } from './clients/cart';
import { Catalog, PriceTick, Product } from './clients/catalog';
import { Checkout } from './clients/checkout';
import { Currency } from './clients/currency';
import { OrderLog } from './clients/orderlog';
import { OrderView } from './clients/orderview';
import { Recommendation } from './clients/recommendation';
import { Order, OrderEvent } from './facts';
import { Front } from './front';
import { Money } from './money';
import { Settings, settingsFrom } from './settings';
import { Shop } from './shop';
import { Strip } from './strip';
import { Timelines } from './timelines';

const dollars = (units: number): Money => ({ currencyCode: 'USD', units, nanos: 0 });

export const MUG: Product = {
  id: 'mug',
  name: 'Mug <deep>',
  description: 'For coffee & tea',
  picture: 'mug',
  priceUsd: dollars(10),
  categories: ['kitchen'],
};
export const STOOL: Product = { ...MUG, id: 'stool', name: 'Stool', picture: 'stool', priceUsd: dollars(55) };

const CURRENCIES = ['USD', 'EUR', 'JPY'];
const CART_LINES_MAX = 20;

export class Neighbours {
  readonly catalog = new Faults();
  readonly currency = new Faults();
  readonly cart = new Faults();
  readonly recommendation = new Faults();
  readonly ads = new Faults();
  readonly checkout = new Faults();
  readonly orderview = new Faults();
  readonly orderlog = new Faults();
  /** What orderview knows, and as of which fact. */
  readonly orders = new Map<string, Order>();
  asOfSeq = 0;
  /** What is in the log, and who is told of more. */
  readonly facts: OrderEvent[] = [];
  readonly followers = new Set<ServerWritableStream<{ fromSeq: number }, OrderEvent>>();
  /** Who is told of prices. */
  readonly watchers = new Set<ServerWritableStream<object, PriceTick>>();
  /** Methods called, and the traceparents that came along. */
  readonly calls: string[] = [];
  readonly traceparents = new Set<string>();
  /** Of orders, as checkout hears them. */
  readonly emails: string[] = [];
  /** What the catalog was searched for. */
  readonly queries: string[] = [];
  readonly #servers: Server[] = [];
  readonly #carts = new Map<string, CartItem[]>();

  /** Starts all of them; answers what a storefront's settings have to be. */
  async start(): Promise<Settings> {
    return settingsFrom({
      CHANNELS_PER_DEPENDENCY: '2',
      GRPC_TIMEOUT_MS: '2000',
      SIDECAR_ADMIN_ADDR: '127.0.0.1:9', // nobody listens there
      PRODUCT_CATALOG_SERVICE_ADDR: await this.#serve('Catalog', this.catalog, {
        listProducts: () => ({ products: [MUG, STOOL] }),
        getProduct: ({ id }: { id: string }) => this.#product(id),
        searchProducts: ({ query }: { query: string }) => {
          this.queries.push(query);
          return { results: [MUG, STOOL].filter((p) => p.name.includes(query)) };
        },
      }),
      CURRENCY_SERVICE_ADDR: await this.#serve('Currency', this.currency, {
        listCurrencies: () => ({ currencyCodes: CURRENCIES }),
        convert: ({ from, toCode }: { from: Money; toCode: string }) => twice(from, toCode),
        convertBatch: ({ from, toCode }: { from: Money[]; toCode: string }) => ({
          converted: from.map((money) => twice(money, toCode)),
        }),
      }),
      CART_SERVICE_ADDR: await this.#serve('Cart', this.cart, {
        getCart: ({ userId }: { userId: string }) => ({ userId, items: this.#carts.get(userId) ?? [] }),
        addItem: ({ userId, item }: { userId: string; item: CartItem }) => {
          const items = [...(this.#carts.get(userId) ?? []), item];
          if (items.length > CART_LINES_MAX) throw new Refusal(status.FAILED_PRECONDITION, 'the cart is full');
          this.#carts.set(userId, items);
          return {};
        },
        emptyCart: ({ userId }: { userId: string }) => (this.#carts.delete(userId), {}),
      }),
      RECOMMENDATION_SERVICE_ADDR: await this.#serve('Recommendation', this.recommendation, {
        listRecommendations: () => ({ productIds: ['stool'] }),
      }),
      AD_SERVICE_ADDR: await this.#serve('Ads', this.ads, {
        getAds: ({ contextKeys }: { contextKeys: string[] }) => ({
          ads: [{ redirectUrl: '/product/mug', text: `Mugs & more for ${contextKeys.join() || 'all'}` }],
        }),
      }),
      ORDERVIEW_SERVICE_ADDR: await this.#serve(events('OrderView'), this.orderview, {
        getOrder: ({ orderId }: { orderId: string }) => ({ order: this.#order(orderId), asOfSeq: this.asOfSeq }),
        listOrders: ({ userId, limit }: { userId: string; limit: number }) => ({
          orders: [...this.orders.values()].filter((order) => order.userId === userId).slice(0, limit),
          asOfSeq: this.asOfSeq,
        }),
      }),
      ORDERLOG_SERVICE_ADDR: await this.#serve(events('OrderLog'), this.orderlog, {}, {
        read: (call: ServerWritableStream<{ orderId: string }, OrderEvent>) => void this.#read(call),
        subscribe: (call: ServerWritableStream<{ fromSeq: number }, OrderEvent>) => this.#subscribe(call),
      }),
      CHECKOUT_SERVICE_ADDR: await this.#serve('Checkout', this.checkout, {
        placeOrder: (request: OrderRequest) => this.#place(request),
      }),
    });
  }

  stop(): void {
    for (const server of this.#servers) server.forceShutdown();
  }

  /** Adds a fact to the log, and tells whoever follows it. */
  append(orderId: string, fact: Partial<OrderEvent>): void {
    const event = { seq: this.facts.length + 1, orderId, ...fact } as OrderEvent;
    this.facts.push(event);
    for (const follower of this.followers) follower.write(event);
  }

  /** Ends all subscriptions, as a log that drains. */
  hangUp(): void {
    for (const follower of this.followers) follower.end();
    this.followers.clear();
  }

  readonly #ticks = (call: ServerWritableStream<object, PriceTick>): void => {
    this.watchers.add(call);
    call.on('cancelled', () => this.watchers.delete(call));
    call.write({ productId: 'mug', priceUsd: dollars(11), atUnixMs: 1 });
  };

  async #serve(
    of: string | ServiceDefinition,
    faults: Faults,
    answers: Record<string, (request: any) => object>,
    streams: UntypedServiceImplementation = { watchPrices: this.#ticks },
  ): Promise<string> {
    const handlers: UntypedServiceImplementation = { ...streams };
    for (const [method, answer] of Object.entries(answers)) {
      const handle = unary(faults, answer);
      handlers[method] = ((call, callback) => {
        this.calls.push(method);
        this.traceparents.add(call.metadata.get('traceparent').join());
        handle(call, callback);
      }) as typeof handle;
    }
    const server = new Server();
    server.addService(typeof of === 'string' ? boutiqueService(of) : of, handlers);
    this.#servers.push(server);
    return `127.0.0.1:${await listen(server, LOOPBACK, 0)}`;
  }

  /** Cards that begin with a 3 are declined; the tracking id says what was asked. */
  #place({ userId, userCurrency, idempotencyKey, mode, creditCard, email }: OrderRequest): object {
    this.emails.push(email);
    const items = this.#carts.get(userId) ?? [];
    if (items.length === 0) throw new Refusal(status.FAILED_PRECONDITION, 'there is nothing in the cart');
    if (creditCard.creditCardNumber.startsWith('3')) throw new Refusal(status.FAILED_PRECONDITION, 'payment: no such <card>');
    this.#carts.delete(userId);
    const total = { currencyCode: userCurrency, units: 24, nanos: 0 };
    const order = { orderId: 'order-1', shippingTrackingId: `WB-${idempotencyKey}`, shippingCost: total, total };
    return {
      state: mode === 'EVENT' ? 'ACCEPTED' : 'CONFIRMED',
      order: { ...order, items: items.map((item) => ({ item, cost: total })) },
    };
  }

  #order(id: string): Order {
    const found = this.orders.get(id);
    if (!found) throw new Refusal(status.NOT_FOUND, `no order '${id}' as of seq ${this.asOfSeq}`);
    return found;
  }

  async #read(call: ServerWritableStream<{ orderId: string }, OrderEvent>): Promise<void> {
    this.traceparents.add(call.metadata.get('traceparent').join());
    try {
      await this.orderlog.before(new AbortController().signal);
      for (const event of this.facts) if (event.orderId === call.request.orderId) call.write(event);
      call.end();
    } catch (error) {
      call.emit('error', error);
    }
  }

  #subscribe(call: ServerWritableStream<{ fromSeq: number }, OrderEvent>): void {
    this.calls.push(`subscribe ${call.request.fromSeq}`);
    for (const event of this.facts) if (event.seq >= call.request.fromSeq) call.write(event);
    this.followers.add(call);
    call.on('cancelled', () => this.followers.delete(call));
  }

  #product(id: string): Product {
    const found = [MUG, STOOL].find((product) => product.id === id);
    if (!found) throw new Refusal(status.NOT_FOUND, 'nobody sells that');
    return found;
  }
}

/** A storefront for these neighbours, and its port. */
export async function open(settings: Settings, faults = new Faults()): Promise<[Front, number]> {
  const catalog = new Catalog(settings);
  const log = new OrderLog(settings);
  const shop = new Shop(
    catalog,
    new Currency(settings),
    new Cart(settings),
    new Recommendation(settings),
    new Ads(settings),
    new Checkout(settings),
    new OrderView(settings),
    log,
    new Strip(settings),
  );
  const front = new Front(shop, catalog, new Timelines(log), faults);
  return [front, await front.listen(0)];
}

function events(name: string): ServiceDefinition {
  return serviceOf(`boutique/events/v1/${name.toLowerCase()}.proto`, `boutique.events.v1.${name}`);
}

interface OrderRequest {
  readonly userId: string;
  readonly userCurrency: string;
  readonly idempotencyKey: string;
  readonly mode: string;
  readonly email: string;
  readonly creditCard: { readonly creditCardNumber: string };
}

/** A dollar is two of anything. */
function twice(money: Money, toCode: string): Money {
  if (!CURRENCIES.includes(toCode)) throw new Refusal(status.INVALID_ARGUMENT, `"${toCode}" is no currency of this shop`);
  return { currencyCode: toCode, units: money.units * 2, nanos: 0 };
}
