//! The floor: a relay with nothing in it. TCP is copied by tokio, HTTP goes from hyper's server to hyper's client; with
//! two hops there is mutual TLS of rustls between them. What a proxy costs beyond this, its features cost.

use std::io;
use std::net::SocketAddr;

use crate::certificates::NAME;
use crate::process::{PROXY_CORE, Process, Start};
use crate::shape::Wire;
use crate::subject::{BACKEND, Plan, World};

/// A package of its own, so that it is built alone, as the sidecar is: what others ask of the libraries that both use would
/// be paid for by this one.
pub const PACKAGE: &str = "bench-relay";

pub fn start(plan: &Plan, world: &World) -> io::Result<(Vec<Process>, Vec<Wire>)> {
    let hop = |hop| {
        let last = hop + 1 == plan.hops;
        let upstream = if last { BACKEND } else { plan.upstream() };
        let mut command = if hop == 0 {
            world.wrapper.clone()
        } else {
            Vec::new()
        };
        command.extend([
            world.binaries.join(PACKAGE).display().to_string(),
            format!("--certificates={}", world.folder.display()),
            format!("--name={NAME}"),
        ]);
        command.extend(Wire::ALL.map(|wire| {
            let to = SocketAddr::from((upstream, wire.port()));
            format!("{}={}={to}", wire.name(), plan.port(hop, wire))
        }));
        command.extend((hop > 0).then(|| "--tls-in".to_owned()));
        command.extend((!last).then(|| "--tls-out".to_owned()));
        Process::start(Start {
            name: format!("relay-{}-{hop}", plan.number),
            command,
            environment: Vec::new(),
            core: PROXY_CORE,
            folder: &world.folder,
        })
    };
    let processes = (0..plan.hops).map(hop).collect::<io::Result<_>>()?;
    Ok((processes, Wire::ALL.to_vec()))
}
