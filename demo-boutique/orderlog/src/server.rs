//! The log, served.

use boutique_chassis::server::{self, MESSAGE_BYTES_MAX, Sockets};
use tonic::server::NamedService;

use crate::log::Log;
use crate::pb::order_log_server::OrderLogServer;
use crate::service::OrderLogService;
use crate::settings::Settings;

const NAMES: &[&str] = &[<OrderLogServer<OrderLogService> as NamedService>::NAME];

/// What the log adds to a fact when it is sent: a few numbers and a time.
const ADDED_BYTES_MAX: usize = 1024;

/// Serves until `stop`, then drains.
pub async fn run(
    settings: Settings,
    sockets: Sockets,
    stop: impl Future<Output = ()>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let log = Log::open(&settings.log_file, settings.limits)?;
    let add = |router: tonic::transport::server::Router, chaos, going_away| {
        let service = OrderLogServer::new(OrderLogService::new(log, chaos, going_away))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX + ADDED_BYTES_MAX);
        router.add_service(service)
    };
    Ok(server::run(settings.process, sockets, NAMES, stop, add).await?)
}
