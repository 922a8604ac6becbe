//! nginx, one worker a process. HTTP/2 goes on to an upstream for gRPC only.

use std::fmt::Write;
use std::io;
use std::path::Path;

use crate::process::{PROXY_CORE, Process, Start};
use crate::shape::Wire;
use crate::subject::{BACKEND, Plan, World};

/// Debian's package libnginx-mod-stream.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub fn start(plan: &Plan, world: &World) -> io::Result<(Vec<Process>, Vec<Wire>)> {
    let mut wires = vec![Wire::Http1, Wire::Http2];
    wires.extend(Path::new(STREAM_MODULE).exists().then_some(Wire::Tcp));
    let mut processes = Vec::new();
    for hop in 0..plan.hops {
        let name = format!("nginx-{}-{hop}", plan.number);
        let folder = world.folder.join(&name);
        std::fs::create_dir_all(&folder)?;
        let path = folder.join("nginx.conf");
        std::fs::write(&path, configuration(plan, hop, &wires, world))?;
        let (prefix, path) = (folder.display().to_string(), path.display().to_string());
        processes.push(Process::start(Start {
            name,
            command: [
                "/usr/sbin/nginx",
                "-p",
                &prefix,
                "-c",
                &path,
                "-e",
                "stderr",
            ]
            .map(str::to_owned)
            .into(),
            environment: Vec::new(),
            core: PROXY_CORE,
            folder: &world.folder,
        })?);
    }
    Ok((processes, wires))
}

fn configuration(plan: &Plan, hop: u8, wires: &[Wire], world: &World) -> String {
    let mut text = String::from(
        "daemon off;\nworker_processes 1;\npid nginx.pid;\nuser root;\nworker_rlimit_nofile 20000;\n",
    );
    if wires.contains(&Wire::Tcp) {
        text += &format!("load_module {STREAM_MODULE};\n");
    }
    text += "events { worker_connections 10000; }\n";
    text += "http {\n  access_log off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n  client_body_buffer_size 128k;\n";
    for wire in [Wire::Http1, Wire::Http2] {
        text += &http_server(plan, hop, wire, world);
    }
    text += "}\n";
    if wires.contains(&Wire::Tcp) {
        text += &stream_server(plan, hop, world);
    }
    text
}

fn upstream(plan: &Plan, hop: u8) -> String {
    let address = if hop + 1 == plan.hops {
        BACKEND
    } else {
        plan.upstream()
    };
    address.map(|byte| byte.to_string()).join(".")
}

fn http_server(plan: &Plan, hop: u8, wire: Wire, world: &World) -> String {
    let (name, port) = (wire.name(), plan.port(hop, wire));
    let last = hop + 1 == plan.hops;
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "  {line}").expect("a string has room");
    line(format!(
        "upstream {name} {{ server {}:{}; keepalive 256; keepalive_requests 1000000000; }}",
        upstream(plan, hop),
        wire.port()
    ));
    let h2 = if wire == Wire::Http2 { " http2" } else { "" };
    let ssl = if hop > 0 { " ssl" } else { "" };
    line(format!("server {{ listen 127.0.0.1:{port}{ssl}{h2};"));
    if hop > 0 {
        line(tls_in(world));
    }
    let pass = if wire == Wire::Http2 { "grpc" } else { "proxy" };
    let scheme = match (wire, last) {
        (Wire::Http2, true) => "grpc",
        (Wire::Http2, false) => "grpcs",
        (_, true) => "http",
        (_, false) => "https",
    };
    line(format!("  location / {{ {pass}_pass {scheme}://{name};"));
    if wire == Wire::Http1 {
        line("    proxy_http_version 1.1; proxy_set_header Connection \"\";".into());
    }
    if !last {
        line(tls_out(pass, world));
    }
    line("  }\n  }".into());
    text
}

fn stream_server(plan: &Plan, hop: u8, world: &World) -> String {
    let (port, last) = (plan.port(hop, Wire::Tcp), hop + 1 == plan.hops);
    let ssl = if hop > 0 { " ssl" } else { "" };
    let tls_in = if hop > 0 {
        tls_in(world)
    } else {
        String::new()
    };
    let tls_out = if last {
        String::new()
    } else {
        format!("proxy_ssl on; {}", tls_out("proxy", world))
    };
    let upstream = upstream(plan, hop);
    format!(
        "stream {{\n  server {{ listen 127.0.0.1:{port}{ssl}; {tls_in} {tls_out} tcp_nodelay on; proxy_pass {upstream}:{}; }}\n}}\n",
        Wire::Tcp.port()
    )
}

fn tls_in(world: &World) -> String {
    let files = &world.certificates;
    format!(
        "ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_verify_client on; \
         ssl_protocols TLSv1.3; ssl_session_tickets off; ssl_session_cache off;",
        files.chain.display(),
        files.key.display(),
        files.authority.display()
    )
}

fn tls_out(kind: &str, world: &World) -> String {
    let files = &world.certificates;
    format!(
        "{kind}_ssl_certificate {}; {kind}_ssl_certificate_key {}; {kind}_ssl_trusted_certificate {}; {kind}_ssl_verify on; \
         {kind}_ssl_name bench; {kind}_ssl_server_name on; {kind}_ssl_protocols TLSv1.3; {kind}_ssl_session_reuse off;",
        files.chain.display(),
        files.key.display(),
        files.authority.display()
    )
}
