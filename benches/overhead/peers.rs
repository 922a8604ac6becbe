//! Proxies that are not known here, by name and start command: a YAML file that a user writes.
//!
//! ```yaml
//! peers:
//! - name: my-proxy
//!   protocols: [http1, http2, tcp]
//!   command: [/usr/local/bin/my-proxy, --listen, "{listen}", --to, "{upstream}"]
//! ```
//!
//! `{listen}` and `{upstream}` are IP:port, `{protocol}` one of the protocols; one process is started for each.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;

use crate::process::{PROXY_CORE, Process, Start};
use crate::shape::Wire;
use crate::subject::{BACKEND, Plan, World};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    peers: Vec<Peer>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    pub name: String,
    pub protocols: Vec<String>,
    pub command: Vec<String>,
}

pub fn read(path: &Path) -> io::Result<Vec<Peer>> {
    let text = std::fs::read_to_string(path)?;
    parse(&text).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

fn parse(text: &str) -> Result<Vec<Peer>, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    for peer in &file.peers {
        wires(peer)?;
        if peer.command.is_empty() {
            return Err(format!("{}: the command is empty", peer.name));
        }
    }
    Ok(file.peers)
}

fn wires(peer: &Peer) -> Result<Vec<Wire>, String> {
    let wire = |name: &String| {
        Wire::parse(name)
            .ok_or_else(|| format!("{}: {name} is none of http1, http2, tcp", peer.name))
    };
    peer.protocols.iter().map(wire).collect()
}

pub fn start(peer: &Peer, plan: &Plan, world: &World) -> io::Result<(Vec<Process>, Vec<Wire>)> {
    let wires = wires(peer).map_err(io::Error::other)?;
    let process = |wire: &Wire| {
        let listen = SocketAddr::from(([127, 0, 0, 1], plan.port(0, *wire)));
        let upstream = SocketAddr::from((BACKEND, wire.port()));
        Process::start(Start {
            name: format!("peer-{}-{}", plan.number, wire.name()),
            command: fill(&peer.command, listen, upstream, *wire),
            environment: vec![("PATH".into(), std::env::var("PATH").unwrap_or_default())],
            core: PROXY_CORE,
            folder: &world.folder,
        })
    };
    let processes = wires.iter().map(process).collect::<io::Result<_>>()?;
    Ok((processes, wires))
}

fn fill(command: &[String], listen: SocketAddr, upstream: SocketAddr, wire: Wire) -> Vec<String> {
    let fill = |word: &String| {
        word.replace("{listen}", &listen.to_string())
            .replace("{upstream}", &upstream.to_string())
            .replace("{protocol}", wire.name())
    };
    command.iter().map(fill).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_started_with_its_places_filled_in() {
        let text = "peers:\n- name: mine\n  protocols: [http2]\n  command: [p, '-l={listen}', '{upstream}', '{protocol}']\n";
        let peers = parse(text).unwrap();
        let (listen, upstream) = (
            "127.0.0.1:1".parse().unwrap(),
            "10.1.0.1:2".parse().unwrap(),
        );
        let command = fill(&peers[0].command, listen, upstream, Wire::Http2);
        assert_eq!(command, ["p", "-l=127.0.0.1:1", "10.1.0.1:2", "http2"]);
    }

    #[test]
    fn a_protocol_that_does_not_exist_is_said_at_once() {
        let text = "peers:\n- {name: mine, protocols: [spdy], command: [p]}\n";
        assert_eq!(
            parse(text).unwrap_err(),
            "mine: spdy is none of http1, http2, tcp"
        );
        assert!(parse("peers:\n- {name: mine, protocol: [tcp], command: [p]}\n").is_err());
    }
}
