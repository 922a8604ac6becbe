/** What the environment says about this storefront. The names are Online Boutique's where it has one. */
import { env } from '@boutique/chassis';

export interface Settings {
  readonly port: number;
  readonly chaosPort: number;
  readonly graceMs: number;
  readonly catalogAddr: string;
  readonly currencyAddr: string;
  readonly cartAddr: string;
  readonly recommendationAddr: string;
  readonly adsAddr: string;
  readonly checkoutAddr: string;
  readonly orderviewAddr: string;
  readonly orderlogAddr: string;
  /** Where a sidecar would say how these are. */
  readonly sidecarAddr: string;
  readonly sidecarTimeoutMs: number;
  /** Whether an order is done when the page says so, or only written down. */
  readonly checkoutMode: 'SYNC' | 'EVENT';
  /** Generous: who wants calls to fail earlier puts something between that knows better. */
  readonly timeoutMs: number;
  readonly channelsPerDependency: number;
  /** One ConvertBatch instead of a Convert for each product. */
  readonly currencyBatch: boolean;
}

export function settingsFrom(from: env.Environment): Settings {
  return {
    port: env.integer(from, 'PORT', 8080),
    chaosPort: env.integer(from, 'CHAOS_PORT', 9880),
    graceMs: env.integer(from, 'DRAIN_SECONDS', 10) * 1000,
    catalogAddr: env.text(from, 'PRODUCT_CATALOG_SERVICE_ADDR', '127.0.0.1:3550'),
    currencyAddr: env.text(from, 'CURRENCY_SERVICE_ADDR', '127.0.0.1:7000'),
    cartAddr: env.text(from, 'CART_SERVICE_ADDR', '127.0.0.1:7070'),
    recommendationAddr: env.text(from, 'RECOMMENDATION_SERVICE_ADDR', '127.0.0.1:8081'),
    adsAddr: env.text(from, 'AD_SERVICE_ADDR', '127.0.0.1:9555'),
    checkoutAddr: env.text(from, 'CHECKOUT_SERVICE_ADDR', '127.0.0.1:5050'),
    orderviewAddr: env.text(from, 'ORDERVIEW_SERVICE_ADDR', '127.0.0.1:7310'),
    orderlogAddr: env.text(from, 'ORDERLOG_SERVICE_ADDR', '127.0.0.1:7300'),
    sidecarAddr: env.text(from, 'SIDECAR_ADMIN_ADDR', '127.0.0.1:14191'),
    sidecarTimeoutMs: 300,
    checkoutMode: env.oneOf(from, 'CHECKOUT_MODE', ['SYNC', 'EVENT']),
    timeoutMs: env.integer(from, 'GRPC_TIMEOUT_MS', 10_000),
    channelsPerDependency: Math.max(1, env.integer(from, 'CHANNELS_PER_DEPENDENCY', 6)),
    currencyBatch: env.flag(from, 'CURRENCY_BATCH'),
  };
}
