//! A host that has fallen off the network: its packets are dropped in both directions, without a word to anybody.

use std::io;
use std::net::Ipv4Addr;

use crate::sandbox::nft;

/// Once, before the first address is dropped. Incoming, because a sender is told of what it fails to send.
pub fn prepare() -> io::Result<()> {
    nft("table ip bench {\n\
         set dropped {\ntype ipv4_addr;\n}\n\
         chain blackhole {\ntype filter hook input priority 0;\nip daddr @dropped drop\nip saddr @dropped drop\n}\n}")
}

pub async fn drop_packets(address: Ipv4Addr) -> io::Result<()> {
    run(format!("add element ip bench dropped {{ {address} }}")).await
}

pub async fn heal(address: Ipv4Addr) -> io::Result<()> {
    run(format!("delete element ip bench dropped {{ {address} }}")).await
}

/// On another thread: the load goes on meanwhile.
async fn run(rules: String) -> io::Result<()> {
    let done = tokio::task::spawn_blocking(move || nft(&rules)).await;
    done.map_err(io::Error::other)?
}
