/** Storefront is the shop's web page: it asks the other services and puts their answers together. */
import { chaosServer, Faults, knobsFrom, listen, LOOPBACK, signalled } from '@boutique/chassis';
import { Ads } from './clients/ads';
import { Cart } from './clients/cart';
import { Catalog } from './clients/catalog';
import { Checkout } from './clients/checkout';
import { Currency } from './clients/currency';
import { OrderLog } from './clients/orderlog';
import { OrderView } from './clients/orderview';
import { Recommendation } from './clients/recommendation';
import { Front } from './front';
import { settingsFrom } from './settings';
import { Shop } from './shop';
import { Strip } from './strip';
import { Timelines } from './timelines';

async function main(): Promise<void> {
  const settings = settingsFrom(process.env);
  const faults = new Faults(knobsFrom(process.env));
  const catalog = new Catalog(settings);
  const orderlog = new OrderLog(settings);
  const shop = new Shop(
    catalog,
    new Currency(settings),
    new Cart(settings),
    new Recommendation(settings),
    new Ads(settings),
    new Checkout(settings),
    new OrderView(settings),
    orderlog,
    new Strip(settings),
  );
  const front = new Front(shop, catalog, new Timelines(orderlog), faults);

  if (settings.chaosPort !== 0) await listen(chaosServer(faults), LOOPBACK, settings.chaosPort);
  const port = await front.listen(settings.port);
  console.log(`storefront: serving on :${port}, knobs on 127.0.0.1:${settings.chaosPort}`);

  await signalled();
  console.log('storefront: draining');
  await front.drain(settings.graceMs);
}

main().then(
  () => process.exit(0),
  (error: Error) => {
    console.error(`storefront: ${error.message}`);
    process.exit(1);
  },
);
