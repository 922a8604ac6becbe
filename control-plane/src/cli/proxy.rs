//! `weir proxy`: the sidecars.

use serde_json::json;
use weir_config::pb;

use super::client::{connect, failure, tell_of, unasked};
use super::table::Table;
use super::{Failure, Output, policy, print};
use crate::journal::now_ms;
use crate::time::{ago, rfc3339};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the sidecars: connected, up to date, certificate
    ///
    /// IN SYNC is "yes" when the sidecar has put in force what it was last sent, "behind" while it has not yet, and
    /// "refused" when it could not: the last column says why.
    Status {
        /// Only this pod, as namespace/name
        pod: Option<String>,

        /// text or json
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Show what holds for a pod's sidecar, value by value, and who said so
    ///
    /// Inbound is how it takes calls, outbound how it calls the services that its app has called. FROM is default for
    /// what nobody said, or names the MeshConfig, the policy, the route of a policy, or the operator who did.
    Policy {
        /// namespace/name
        pod: String,

        /// Only for this service, as namespace/name or namespace/name:port
        #[arg(long, value_name = "SERVICE")]
        service: Option<String>,

        /// Only what somebody said
        #[arg(long)]
        said: bool,

        /// text or json
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,

        /// Same as --output json
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(control_plane: &str, command: Command) -> Result<(), Failure> {
    let (pod, output) = match command {
        Command::Status { pod, output } => (pod, output),
        Command::Policy {
            pod,
            service,
            said,
            output,
            json,
        } => {
            let output = if json { Output::Json } else { output };
            return policy::run(control_plane, &pod, service.as_deref(), said, output).await;
        }
    };
    let response = connect(control_plane)
        .await?
        .proxies(pb::ProxiesRequest {})
        .await
        .map_err(failure)?;
    tell_of(&unasked(&response));
    let response = response.into_inner();
    let name = |proxy: &pb::ProxyStatus| format!("{}/{}", proxy.pod_namespace, proxy.pod_name);
    let wanted = |proxy: &&pb::ProxyStatus| pod.as_ref().is_none_or(|pod| *pod == name(proxy));
    let proxies: Vec<&pb::ProxyStatus> = response.proxies.iter().filter(wanted).collect();
    if let Some(pod) = pod.as_ref().filter(|_| proxies.is_empty()) {
        return Err(Failure::Failed(format!(
            "no sidecar of {pod} has ever connected to this control plane"
        )));
    }
    match output {
        Output::Json => {
            let proxies: Vec<_> = proxies.into_iter().map(json).collect();
            print(&format!(
                "{:#}\n",
                json!({ "version": response.version, "proxies": proxies })
            ))
        }
        Output::Text if proxies.is_empty() => {
            eprintln!("no sidecar has connected yet");
            Ok(())
        }
        Output::Text => {
            let mut table = Table::new(&[
                "POD",
                "CONNECTED",
                "SINCE",
                "IN SYNC",
                "VERSION",
                "ADDRESSES",
                "CERTIFICATE",
                "STATE",
                "LAST REFUSAL",
            ]);
            for proxy in proxies {
                table.row(row(proxy, &name(proxy), now_ms()));
            }
            print(&table.render())
        }
    }
}

fn row(proxy: &pb::ProxyStatus, name: &str, now: u64) -> [String; 9] {
    let since = if proxy.connected {
        proxy.connected_since_ms
    } else {
        proxy.last_seen_ms
    };
    let left = match proxy.certificate_expires_ms {
        expires if expires <= now => "expired".to_owned(),
        expires => format!("{} left", ago(now, expires)),
    };
    [
        name.to_owned(),
        if proxy.connected { "yes" } else { "no" }.to_owned(),
        ago(since, now),
        in_sync(proxy).to_owned(),
        proxy.acked_version.to_string(),
        proxy.destinations.to_string(),
        left,
        if proxy.draining {
            "draining"
        } else {
            "serving"
        }
        .to_owned(),
        proxy.last_nack.clone(),
    ]
}

fn in_sync(proxy: &pb::ProxyStatus) -> &'static str {
    match (
        proxy.connected,
        proxy.last_nack.is_empty(),
        proxy.sent_version == proxy.acked_version,
    ) {
        (false, ..) => "unknown",
        (_, false, _) => "refused",
        (_, _, true) => "yes",
        (_, _, false) => "behind",
    }
}

fn json(proxy: &pb::ProxyStatus) -> serde_json::Value {
    json!({
        "namespace": proxy.pod_namespace,
        "pod": proxy.pod_name,
        "identity": proxy.identity,
        "proxyVersion": proxy.proxy_version,
        "connected": proxy.connected,
        "inSync": in_sync(proxy),
        "sentVersion": proxy.sent_version,
        "ackedVersion": proxy.acked_version,
        "lastRefusal": proxy.last_nack,
        "connectedSince": rfc3339(proxy.connected_since_ms),
        "lastSeen": rfc3339(proxy.last_seen_ms),
        "addresses": proxy.destinations,
        "certificateExpires": rfc3339(proxy.certificate_expires_ms),
        "draining": proxy.draining,
    })
}
