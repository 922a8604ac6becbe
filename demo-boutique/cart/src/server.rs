//! The cart, served: its settings made into its store and its API.

use boutique_chassis::server::{self, MESSAGE_BYTES_MAX, Sockets};
use tonic::server::NamedService;
use tonic::transport::Error;

use crate::pb::cart_server::CartServer;
use crate::service::{Alias, CartService};
use crate::settings::Settings;
use crate::store::{MemoryCarts, RedisCarts, Store};

const NAMES: &[&str] = &[
    <CartServer<CartService> as NamedService>::NAME,
    <Alias<CartService> as NamedService>::NAME,
];

/// Serves until `stop`, then drains.
pub async fn run(
    settings: Settings,
    sockets: Sockets,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let store = match settings.redis_addr {
        Some(addr) => Store::Redis(RedisCarts::new(addr, settings.redis_timeout)),
        None => Store::Memory(MemoryCarts::default()),
    };
    server::run(
        settings.process,
        sockets,
        NAMES,
        stop,
        |router, chaos, _| {
            let cart = CartServer::new(CartService::new(store, chaos))
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
            router.add_service(Alias(cart.clone())).add_service(cart)
        },
    )
    .await
}
