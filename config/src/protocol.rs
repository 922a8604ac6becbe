//! What a Service says is spoken on a port, and why we think so: `appProtocol`, then the port's name, then the
//! ports on which the server is known to speak first, then detection.

use crate::resource::{IntOrString, ServicePort};
use crate::snapshot::Protocol;

/// SMTP, submission, MySQL, SQL Server's old default, PostgreSQL, Redis, Elasticsearch transport, memcached: the
/// server greets, or the protocol is surely not HTTP. Waiting there for the client's first bytes would stall.
const SERVER_SPEAKS_FIRST: [u16; 8] = [25, 587, 3306, 4444, 5432, 6379, 9300, 11211];

/// A protocol and the sentence that explains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortProtocol {
    pub protocol: Protocol,
    pub reason: String,
}

pub fn of_port(port: &ServicePort) -> PortProtocol {
    let decided = |protocol, reason| PortProtocol { protocol, reason };
    if let Some(protocol) = port.app_protocol.as_deref().and_then(by_app_protocol) {
        let said = port.app_protocol.as_deref().unwrap_or_default();
        return decided(protocol, format!("appProtocol is {said}"));
    }
    if let Some(protocol) = by_name(port.name()) {
        return decided(protocol, format!("the port's name is {}", port.name()));
    }
    let target = match port.target_port {
        Some(IntOrString::Int(target)) => target,
        _ => port.port,
    };
    if let Some(known) = [port.port, target]
        .into_iter()
        .find(|port| SERVER_SPEAKS_FIRST.contains(port))
    {
        return decided(
            Protocol::Opaque,
            format!("the server speaks first on port {known}"),
        );
    }
    decided(
        Protocol::Detect,
        "neither appProtocol nor the port's name says".to_owned(),
    )
}

fn by_app_protocol(said: &str) -> Option<Protocol> {
    match said.to_ascii_lowercase().as_str() {
        "kubernetes.io/h2c" | "grpc" | "h2c" | "http2" => Some(Protocol::Http2),
        "http" | "kubernetes.io/ws" => Some(Protocol::Http),
        "tcp" | "tls" | "https" | "kubernetes.io/wss" => Some(Protocol::Opaque),
        "redis" | "mysql" | "postgresql" | "mongo" | "mongodb" | "amqp" | "kafka" => {
            Some(Protocol::Opaque)
        }
        _ => None,
    }
}

/// `grpc` or `grpc-anything`.
fn by_name(name: &str) -> Option<Protocol> {
    match name.split('-').next()? {
        "grpc" | "http2" | "h2c" => Some(Protocol::Http2),
        "http" => Some(Protocol::Http),
        "tcp" | "tls" | "https" => Some(Protocol::Opaque),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, app_protocol: &str, number: u16) -> ServicePort {
        ServicePort {
            name: (!name.is_empty()).then(|| name.to_owned()),
            app_protocol: (!app_protocol.is_empty()).then(|| app_protocol.to_owned()),
            port: number,
            ..ServicePort::default()
        }
    }

    #[test]
    fn app_protocol_beats_the_name_and_the_name_beats_the_number() {
        for (name, app_protocol, number, expected) in [
            ("http-web", "grpc", 80, Protocol::Http2),
            ("", "kubernetes.io/h2c", 80, Protocol::Http2),
            ("", "kubernetes.io/ws", 80, Protocol::Http),
            ("", "HTTP", 6379, Protocol::Http),
            ("grpc-api", "", 6379, Protocol::Http2),
            ("http2-api", "", 1, Protocol::Http2),
            ("http", "", 1, Protocol::Http),
            ("tcp-redis", "", 80, Protocol::Opaque),
            ("httpx", "", 80, Protocol::Detect),
            ("web", "example.com/unheard-of", 80, Protocol::Detect),
            ("", "", 6379, Protocol::Opaque),
        ] {
            let decided = of_port(&port(name, app_protocol, number));
            assert_eq!(
                decided.protocol, expected,
                "{name:?} {app_protocol:?} {number}: {}",
                decided.reason
            );
        }
    }

    #[test]
    fn a_database_behind_another_service_port_is_still_opaque() {
        let behind = ServicePort {
            target_port: Some(IntOrString::Int(5432)),
            ..port("db", "", 15432)
        };
        assert_eq!(of_port(&behind).protocol, Protocol::Opaque);
    }
}
