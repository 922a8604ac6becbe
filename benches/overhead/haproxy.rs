//! HAProxy, one thread a process.

use std::fmt::Write;
use std::io;

use crate::process::{PROXY_CORE, Process, Start};
use crate::shape::Wire;
use crate::subject::{BACKEND, Plan, World};

pub fn start(plan: &Plan, world: &World) -> io::Result<(Vec<Process>, Vec<Wire>)> {
    let mut processes = Vec::new();
    for hop in 0..plan.hops {
        let name = format!("haproxy-{}-{hop}", plan.number);
        let path = world.folder.join(format!("{name}.cfg"));
        std::fs::write(&path, configuration(plan, hop, world))?;
        processes.push(Process::start(Start {
            name,
            command: [
                "/usr/sbin/haproxy",
                "-db",
                "-f",
                &path.display().to_string(),
            ]
            .map(str::to_owned)
            .into(),
            environment: Vec::new(),
            core: PROXY_CORE,
            folder: &world.folder,
        })?);
    }
    Ok((processes, Wire::ALL.to_vec()))
}

fn configuration(plan: &Plan, hop: u8, world: &World) -> String {
    let files = &world.certificates;
    let (both, authority) = (files.both.display(), files.authority.display());
    let last = hop + 1 == plan.hops;
    let upstream = if last { BACKEND } else { plan.upstream() };
    let upstream = upstream.map(|byte| byte.to_string()).join(".");
    let mut text = String::from(
        "global\n  nbthread 1\n  maxconn 8000\n  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets\n  \
         ssl-default-server-options ssl-min-ver TLSv1.3\n\
         defaults\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n  timeout http-request 10s\n  retries 1\n",
    );
    for wire in Wire::ALL {
        let mode = if wire == Wire::Tcp { "tcp" } else { "http" };
        let (proto, alpn) = if wire == Wire::Http2 {
            (" proto h2", " alpn h2")
        } else {
            ("", "")
        };
        let tls_in = if hop > 0 {
            format!(" ssl crt {both} ca-file {authority} verify required{alpn}")
        } else {
            String::new()
        };
        let tls_out = if last {
            String::new()
        } else {
            format!(
                " ssl crt {both} ca-file {authority} verify required verifyhost bench sni str(bench) no-ssl-reuse{alpn}"
            )
        };
        let (name, port) = (wire.name(), plan.port(hop, wire));
        // HTTP/2 is negotiated where there is TLS, and known in advance where there is none.
        let bind_proto = if hop > 0 { "" } else { proto };
        let server_proto = if last { proto } else { "" };
        let reuse = if wire == Wire::Tcp {
            ""
        } else {
            "  http-reuse always\n"
        };
        let written = write!(
            text,
            "listen {name}\n  mode {mode}\n{reuse}  bind 127.0.0.1:{port}{tls_in}{bind_proto}\n  \
             server upstream {upstream}:{}{tls_out}{server_proto}\n",
            wire.port()
        );
        written.expect("a string has room");
    }
    text
}
