//! What this sidecar was started with: arguments as given, then what follows from them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use weir_config::snapshot::AccessLog;
use weir_config::units::PortRanges;

/// Everything is a flag and an environment variable; the injector sets the variables.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Control plane, host:port.
    #[arg(long, env = "WEIR_CONTROL_PLANE_ADDR")]
    pub control_plane_addr: String,

    /// This pod's name: with the namespace, what the bootstrap token is checked against.
    #[arg(long, env = "WEIR_POD_NAME")]
    pub pod_name: String,

    #[arg(long, env = "WEIR_POD_NAMESPACE")]
    pub pod_namespace: String,

    /// This pod's addresses, comma-separated. The first is where probes reach the app.
    #[arg(long, env = "WEIR_POD_IPS", value_delimiter = ',', required = true)]
    pub pod_ips: Vec<IpAddr>,

    /// Trust domain that the control plane must belong to.
    #[arg(long, env = "WEIR_TRUST_DOMAIN", default_value = "weir.local")]
    pub trust_domain: String,

    /// File with this pod's bootstrap token.
    #[arg(
        long,
        env = "WEIR_TOKEN_FILE",
        default_value = "/var/run/secrets/weir/token"
    )]
    pub token_file: PathBuf,

    /// File with the mesh's trust anchors, PEM.
    #[arg(
        long,
        env = "WEIR_TRUST_BUNDLE_FILE",
        default_value = "/var/run/secrets/weir/ca.crt"
    )]
    pub trust_bundle_file: PathBuf,

    /// Probes of the app, rewritten by the injector to reach the admin port: JSON.
    #[arg(
        long,
        env = "WEIR_APP_PROBERS",
        default_value = "{}",
        hide_env_values = true
    )]
    pub app_probers: String,

    /// The app's ports on which nobody looks for calls, such as 25,3306-3310, whatever its Services say.
    #[arg(long, env = "WEIR_OPAQUE_PORTS", value_name = "PORTS")]
    pub opaque_ports: Option<PortRanges>,

    /// Where what the app sends is redirected to.
    #[arg(long, env = "WEIR_OUTBOUND_ADDR", default_value = "127.0.0.1:14140")]
    pub outbound_addr: SocketAddr,

    /// Where what others send to the app is redirected to.
    #[arg(long, env = "WEIR_INBOUND_ADDR", default_value = "0.0.0.0:14143")]
    pub inbound_addr: SocketAddr,

    /// Health, metrics and state. State is shown on loopback only.
    #[arg(long, env = "WEIR_ADMIN_ADDR", default_value = "0.0.0.0:14191")]
    pub admin_addr: SocketAddr,

    /// Worker threads [default: the CPUs that the cgroup allows, at least 1].
    #[arg(long, env = "WEIR_WORKERS")]
    pub workers: Option<usize>,

    /// Memory in bytes that it may use, where that is less than its cgroup allows: from 80 % on it begins 64 calls at a
    /// time, from 90 % on it takes no more than 64 connections [default, and 0: what the cgroup allows].
    #[arg(long, env = "WEIR_MEMORY_LIMIT", value_name = "BYTES")]
    pub memory_limit: Option<u64>,

    /// Mark put on our own sockets where the redirection cannot tell us by user, decimal or 0x…; 0: none.
    #[arg(long, env = "WEIR_SOCKET_MARK", default_value = "0", value_parser = mark)]
    pub socket_mark: u32,

    /// How long the sidecar may take to end after SIGTERM, with the requests that are in flight then.
    #[arg(long, env = "WEIR_DRAIN_SECONDS", default_value_t = 30)]
    pub drain_seconds: u64,

    /// How long new connections are still taken after SIGTERM, until callers have heard of it; half of the drain seconds
    /// at most.
    #[arg(long, env = "WEIR_DRAIN_DELAY_MS", default_value_t = 1500)]
    pub drain_delay_ms: u64,

    /// Access log until policy says otherwise: off, json or text.
    #[arg(long, env = "WEIR_ACCESS_LOG", default_value = "off", value_parser = access_log)]
    pub access_log: AccessLog,

    /// What to log: a level, or directives such as weir_proxy=debug,info.
    #[arg(long, env = "WEIR_LOG", default_value = "info")]
    pub log: String,
}

impl Settings {
    pub fn mark(&self) -> Option<u32> {
        (self.socket_mark != 0).then_some(self.socket_mark)
    }

    pub fn worker_count(&self) -> usize {
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        self.workers.unwrap_or_else(available).max(1)
    }

    /// From SIGTERM to the end: the injector keeps it below the pod's grace, so nothing may come on top of it.
    pub fn drain_limit(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// The first part of the limit; what is in flight after it needs the rest.
    pub fn drain_delay(&self) -> Duration {
        Duration::from_millis(self.drain_delay_ms).min(self.drain_limit() / 2)
    }

    pub fn own_ports(&self) -> [u16; 3] {
        [
            self.outbound_addr.port(),
            self.inbound_addr.port(),
            self.admin_addr.port(),
        ]
    }

    pub fn control_plane_identity(&self) -> String {
        format!(
            "spiffe://{}/ns/weir-system/sa/weir-control-plane",
            self.trust_domain
        )
    }
}

fn mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("expected a number such as 0x14102, found {text:?}"))
}

fn access_log(text: &str) -> Result<AccessLog, String> {
    match text {
        "off" => Ok(AccessLog::Disabled),
        "json" => Ok(AccessLog::Json),
        "text" => Ok(AccessLog::Text),
        _ => Err(format!("expected off, json or text, found {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        settings: Settings,
    }

    /// A pod with a grace of two seconds drains in one. The delay came on top of it, and SIGKILL before the end.
    #[test]
    fn the_drain_delay_is_a_part_of_the_drain_and_leaves_half_of_it() {
        let drain = |more: &[&str]| {
            let given = "weir-proxy --control-plane-addr a:1 --pod-name a --pod-namespace a --pod-ips 127.0.0.1";
            let arguments = given.split(' ').chain(more.iter().copied());
            let settings = Arguments::parse_from(arguments).settings;
            let millis = |duration: Duration| duration.as_millis();
            (
                millis(settings.drain_delay()),
                millis(settings.drain_limit()),
            )
        };
        assert_eq!(drain(&[]), (1_500, 30_000));
        assert_eq!(drain(&["--drain-seconds", "1"]), (500, 1_000));
        assert_eq!(drain(&["--drain-seconds", "0"]), (0, 0));
        assert_eq!(drain(&["--drain-delay-ms", "0"]), (0, 30_000));
    }
}
