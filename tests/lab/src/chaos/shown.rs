//! What new connections are shown: the certificates of a workload's sidecars, as a stranger gets to see them who has none.
//!
//! A sidecar shows its certificate before it asks for the other's, so that somebody whom it then refuses has seen it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, interval};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::knobs::AnyError;
use super::stage::Stage;
use crate::client::Client;
use crate::credulous::Credulous;

/// Of the shortest life of a certificate, 30 s, little.
const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_millis(500);
/// What sidecars offer each other for multiplexed HTTP.
const PROTOCOL: &[u8] = b"weir.h2/1";

/// What one connection was shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Seconds since the beginning.
    pub t: f64,
    pub pod: IpAddr,
    pub serial: String,
    /// Seconds for which it was still valid then.
    pub left: f64,
}

/// A workload and the port that its pods are connected to there, as a claim names them: `catalog:3550`.
pub(super) fn parse(about: &str) -> Option<(&str, u16)> {
    let (workload, port) = about.split_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!workload.is_empty()).then_some((workload, port))
}

/// Connects to each of its pods once a second, until it is aborted. Whoever does not answer shows nothing.
pub(super) async fn keep_connecting(
    stage: Stage,
    about: String,
    start: Instant,
    shown: UnboundedSender<(String, Shown)>,
) {
    let Some((workload, port)) = parse(&about) else {
        return;
    };
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let pods = stage.shop().pods().into_iter();
        for (_, pod) in pods.filter(|(name, _)| name == workload) {
            let lab = stage.shop().lab().client().clone();
            let at = SocketAddr::new(pod, port);
            let ask = tokio::task::spawn_blocking(move || certificate(&lab, at));
            let Ok((serial, left)) = ask.await.expect("asking does not panic") else {
                continue;
            };
            let t = start.elapsed().as_secs_f64();
            let one = Shown {
                t,
                pod,
                serial,
                left,
            };
            if shown.send((about.clone(), one)).is_err() {
                return;
            }
        }
    }
}

/// Its serial number, and the seconds that it is still valid.
fn certificate(lab: &Client, at: SocketAddr) -> Result<(String, f64), AnyError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    let name = ServerName::IpAddress(at.ip().into());
    let mut tls = ClientConnection::new(Arc::new(config), name)?;
    let mut stream = lab.dial(None, &at.to_string())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream)?;
    }
    let leaf = tls.peer_certificates().and_then(|chain| chain.first());
    let (_, leaf) = X509Certificate::from_der(leaf.ok_or("it shows none")?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let left = leaf.validity().not_after.timestamp() as f64 - now;
    Ok((leaf.tbs_certificate.raw_serial_as_string(), left))
}

/// Of the pod that showed the fewest different certificates meanwhile, how many; and the seconds that were left of the one
/// that was nearest to its end. Nothing of whom no connection was shown any.
pub(super) fn counted(all: &[(String, Shown)], during: Range<f64>) -> BTreeMap<String, f64> {
    let mut serials: BTreeMap<(&str, IpAddr), BTreeSet<&str>> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    let mut least = |name: String, value: f64| {
        let known = counts.entry(name).or_insert(value);
        *known = known.min(value);
    };
    for (about, one) in all.iter().filter(|(_, one)| during.contains(&one.t)) {
        let of_pod = serials.entry((about, one.pod)).or_default();
        of_pod.insert(&one.serial);
        least(left(about), one.left);
    }
    for ((about, _), serials) in serials {
        least(different(about), serials.len() as f64);
    }
    counts
}

pub(super) fn different(about: &str) -> String {
    format!("certificates of {about}")
}

pub(super) fn left(about: &str) -> String {
    format!("certificate left of {about}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: &str = "catalog:3550";

    fn shown(t: f64, pod: u8, serial: &str, left: f64) -> (String, Shown) {
        let one = Shown {
            t,
            pod: IpAddr::from([10, 244, 0, pod]),
            serial: serial.into(),
            left,
        };
        (ABOUT.into(), one)
    }

    #[test]
    fn the_pod_whose_certificate_changed_least_counts_and_the_moment_when_one_was_nearest_to_its_end()
     {
        let all = [
            shown(4.0, 1, "before", 1.0),
            shown(10.0, 1, "a", 20.0),
            shown(20.0, 1, "a", 10.5),
            shown(21.0, 1, "b", 30.0),
            shown(10.0, 2, "c", 29.0),
            shown(30.0, 2, "c", 9.5),
            shown(70.0, 2, "after", -1.0),
        ];
        let counts = counted(&all, 10.0..70.0);
        assert_eq!(counts[&different(ABOUT)], 1.0);
        assert_eq!(counts[&left(ABOUT)], 9.5);
        let counts = counted(&all[..4], 10.0..70.0);
        assert_eq!(counts[&different(ABOUT)], 2.0);
        assert_eq!(counts[&left(ABOUT)], 10.5);
        assert!(counted(&all, 50.0..60.0).is_empty(), "nobody was shown any");
    }

    #[test]
    fn a_workload_has_a_port() {
        assert_eq!(parse(ABOUT), Some(("catalog", 3550)));
        for wrong in ["catalog", "catalog:", ":3550", "catalog:0", "catalog:http"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
