//! Objects as an API server has them, of few names so that they collide, and with all that they may leave out.

use serde_json::{Map, Value, json};
use weir_config::Kind;

const NAMESPACES: [&str; 2] = ["shop", "bank"];
const SERVICES: [&str; 3] = ["a", "b", "c"];
const PODS: [&str; 4] = ["p0", "p1", "p2", "p3"];
const PORT_NAMES: [&str; 4] = ["http", "grpc", "tcp-raw", "web"];
const CLUSTER_IPS: [&str; 4] = ["10.96.0.1", "10.96.0.2", "10.96.0.3", "fd96::1"];
const POD_IPS: [&str; 5] = ["10.1.0.1", "10.1.0.2", "10.1.0.3", "fd00::1", "fd00::2"];
const PORTS: [u16; 3] = [80, 81, 3306];
const TARGET_PORTS: [u16; 3] = [8080, 8081, 9090];
const ZONES: [&str; 3] = ["", "east", "west"];
const NODES: [&str; 3] = ["", "first", "second"];
/// What is written more often is more often the cause.
const KINDS: [Kind; 19] = [
    Kind::Service,
    Kind::Service,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::EndpointSlice,
    Kind::EndpointSlice,
    Kind::Pod,
    Kind::Pod,
    Kind::Pod,
    Kind::ResiliencePolicy,
    Kind::ResiliencePolicy,
    Kind::AuthorizationPolicy,
    Kind::FaultPolicy,
    Kind::HttpRoute,
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::ReferenceGrant,
    Kind::ReferenceGrant,
    Kind::MeshConfig,
];

pub(super) struct Dice(pub(super) fastrand::Rng);

impl Dice {
    pub(super) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.0.usize(..of.len())]
    }

    pub(super) fn chance(&mut self, percent: u8) -> bool {
        self.0.u8(..100) < percent
    }

    /// One more often: what is in different ones seldom meets.
    fn namespace(&mut self) -> &'static str {
        match self.chance(75) {
            true => NAMESPACES[0],
            false => NAMESPACES[1],
        }
    }

    pub(super) fn pod(&mut self) -> (&'static str, &'static str) {
        (self.namespace(), self.one(&PODS))
    }

    pub(super) fn service(&mut self) -> (&'static str, &'static str, u16) {
        (self.namespace(), self.one(&SERVICES), self.one(&PORTS))
    }

    /// What an app may dial.
    pub(super) fn address(&mut self) -> (&'static str, u16) {
        match self.chance(70) {
            true => (self.one(&CLUSTER_IPS), self.one(&PORTS)),
            false => (self.one(&POD_IPS), self.one(&TARGET_PORTS)),
        }
    }

    pub(super) fn object(&mut self) -> (Kind, Value) {
        let kind = self.one(&KINDS);
        let object = match kind {
            Kind::Service => self.a_service(),
            Kind::EndpointSlice => self.a_slice(),
            Kind::Pod => self.a_pod(),
            Kind::ResiliencePolicy => self.resilience(),
            Kind::AuthorizationPolicy => self.authorization(),
            Kind::FaultPolicy => self.faults(),
            Kind::MeshConfig => self.mesh(),
            Kind::HttpRoute => self.http_route(),
            Kind::GrpcRoute => self.grpc_route(),
            Kind::ReferenceGrant => self.grant(),
        };
        (kind, object)
    }

    fn metadata(&mut self, name: &str) -> Value {
        let created = format!("2026-11-26T03:00:0{}Z", self.0.u8(..3));
        json!({ "name": name, "namespace": self.namespace(), "creationTimestamp": created })
    }

    fn a_service(&mut self) -> Value {
        let name = self.one(&SERVICES);
        let mut spec = json!({ "ports": self.service_ports() });
        match self.0.u8(..8) {
            0 => spec["clusterIP"] = json!("None"),
            1 => {
                spec["type"] = json!("ExternalName");
                spec["externalName"] = json!("db.example");
            }
            2 => {
                let ips = [self.one(&CLUSTER_IPS[..3]), CLUSTER_IPS[3]];
                spec["clusterIP"] = json!(ips[0]);
                spec["clusterIPs"] = json!(ips);
            }
            3 => {} // it will get one
            _ => spec["clusterIP"] = json!(self.one(&CLUSTER_IPS)),
        }
        spec["selector"] = match self.0.u8(..5) {
            0 => Value::Null,
            1 => json!({ "app": self.one(&SERVICES), "tier": self.one(&["web", "db"]) }),
            _ => json!({ "app": self.one(&SERVICES) }),
        };
        if self.chance(15) {
            spec["internalTrafficPolicy"] = json!(self.one(&["Local", "Cluster"]));
        }
        if self.chance(10) {
            spec["publishNotReadyAddresses"] = json!(true);
        }
        json!({ "metadata": self.metadata(name), "spec": spec })
    }

    fn service_ports(&mut self) -> Value {
        let mut ports = Vec::new();
        for (number, named) in PORTS.into_iter().zip(["http", "grpc", "tcp-raw"]) {
            if self.chance(30) {
                continue;
            }
            let mut port =
                json!({ "port": number, "protocol": self.one(&["TCP", "TCP", "TCP", "UDP"]) });
            match self.0.u8(..6) {
                0 => {}
                1 => port["name"] = json!(PORT_NAMES[3]),
                _ => port["name"] = json!(named),
            }
            match self.0.u8(..4) {
                0 => {}
                1 => port["targetPort"] = json!(self.one(&PORT_NAMES)),
                _ => port["targetPort"] = json!(self.one(&TARGET_PORTS)),
            }
            if self.chance(20) {
                port["appProtocol"] =
                    json!(self.one(&["http", "grpc", "tcp", "kubernetes.io/h2c"]));
            }
            ports.push(port);
        }
        json!(ports)
    }

    fn a_slice(&mut self) -> Value {
        let name = self.one(&["s0", "s1", "s2"]);
        let mut metadata = self.metadata(name);
        if self.chance(95) {
            metadata["labels"] = json!({ "kubernetes.io/service-name": self.one(&SERVICES) });
        }
        let endpoints: Vec<Value> = (0..self.0.u8(..4)).map(|_| self.endpoint()).collect();
        let endpoints = match self.chance(10) {
            true => Value::Null,
            false => json!(endpoints),
        };
        json!({
            "metadata": metadata, "addressType": "IPv4",
            "endpoints": endpoints, "ports": self.slice_ports(),
        })
    }

    fn endpoint(&mut self) -> Value {
        let mut endpoint = match self.0.u8(..8) {
            0 => json!({ "addresses": ["db.example"] }),
            1 => json!({ "addresses": [self.one(&POD_IPS), self.one(&POD_IPS)] }),
            _ => json!({ "addresses": [self.one(&POD_IPS)] }),
        };
        let condition = |dice: &mut Self| {
            dice.one(&[json!(true), json!(false), Value::Null].each_ref())
                .clone()
        };
        endpoint["conditions"] = match self.0.u8(..4) {
            0 => Value::Null,
            1 => {
                json!({ "ready": condition(self), "serving": condition(self), "terminating": condition(self) })
            }
            _ => json!({ "ready": true }),
        };
        if self.chance(70) {
            let kind = self.one(&["Pod", "Pod", "Pod", "Node"]);
            endpoint["targetRef"] = json!({ "kind": kind, "name": self.one(&PODS) });
        }
        if self.chance(50) {
            endpoint["zone"] = json!(self.one(&ZONES));
        }
        if self.chance(30) {
            endpoint["nodeName"] = json!(self.one(&NODES));
        }
        endpoint
    }

    fn slice_ports(&mut self) -> Value {
        if self.chance(10) {
            return self.one(&[Value::Null, json!([])].each_ref()).clone();
        }
        let mut ports = Vec::new();
        for name in PORT_NAMES {
            if self.chance(70) {
                let protocol = self.one(&["TCP", "TCP", "TCP", "UDP"]);
                let number = match self.chance(10) {
                    true => Value::Null,
                    false => json!(self.one(&TARGET_PORTS)),
                };
                ports.push(json!({ "name": name, "port": number, "protocol": protocol }));
            }
        }
        if self.chance(20) {
            let name = self.one(&[Value::Null, json!("")].each_ref()).clone();
            ports.push(json!({ "name": name, "port": self.one(&TARGET_PORTS) }));
        }
        json!(ports)
    }

    fn a_pod(&mut self) -> Value {
        let name = self.one(&PODS);
        let mut metadata = self.metadata(name);
        metadata["labels"] =
            json!({ "app": self.one(&SERVICES), "tier": self.one(&["web", "db"]) });
        if self.chance(20) {
            metadata["labels"]["topology.kubernetes.io/zone"] = json!(self.one(&ZONES));
        }
        for (annotation, value) in [
            ("weir.dev/weight", "50"),
            ("config.weir.dev/opaque-ports", "8080"),
            ("config.weir.dev/skip-inbound-ports", "8081"),
        ] {
            if self.chance(15) {
                metadata["annotations"][annotation] = json!(value);
            }
        }
        if self.chance(10) {
            metadata["deletionTimestamp"] = json!("2026-11-26T04:00:00Z");
        }
        let mut ports = Vec::new();
        for name in PORT_NAMES {
            if self.chance(50) {
                ports.push(json!({ "name": name, "containerPort": self.one(&TARGET_PORTS) }));
            }
        }
        let mut containers = vec![json!({ "name": "app", "ports": ports })];
        if self.chance(70) {
            containers.push(json!({ "name": "weir-proxy", "env": [{ "name": "WEIR_POD_NAME" }] }));
        }
        let mut spec = json!({ "containers": containers, "nodeName": self.one(&NODES) });
        if self.chance(70) {
            spec["serviceAccountName"] = json!(self.one(&["one", "two", ""]));
        }
        if self.chance(10) {
            spec["hostNetwork"] = json!(true);
        }
        let mut status =
            json!({ "phase": self.one(&["Pending", "Running", "Running", "Running", "Failed"]) });
        if self.chance(90) {
            let ip = self.one(&POD_IPS);
            status["podIP"] = json!(ip);
            if self.chance(30) {
                status["podIPs"] = json!([{ "ip": ip }, { "ip": self.one(&POD_IPS) }]);
            }
        }
        json!({ "metadata": metadata, "spec": spec, "status": status })
    }

    fn target(&mut self, may_be_a_namespace: bool, namespace: &str) -> Value {
        match self.0.u8(..4) {
            0 if may_be_a_namespace => json!({ "kind": "Namespace", "name": namespace }),
            1 => {
                let port = self.one(&PORT_NAMES);
                json!({ "kind": "Service", "name": self.one(&SERVICES), "sectionName": port })
            }
            _ => json!({ "kind": "Service", "name": self.one(&SERVICES) }),
        }
    }

    /// One or two, and never the same twice.
    fn targets(&mut self, may_be_a_namespace: bool, metadata: &Value) -> Value {
        let namespace = metadata["namespace"].as_str().unwrap_or_default();
        let mut targets = vec![self.target(may_be_a_namespace, namespace)];
        if self.chance(40) {
            let second = self.target(may_be_a_namespace, namespace);
            if second != targets[0] {
                targets.push(second);
            }
        }
        json!(targets)
    }

    fn outbound(&mut self) -> Value {
        let mut outbound = json!({ "deadline": self.one(&["1s", "2s", "3s"]) });
        if self.chance(30) {
            let alternate = json!({ "name": self.one(&SERVICES), "port": self.one(&PORTS) });
            outbound["fallback"] = json!({ "alternate": alternate });
        }
        outbound
    }

    fn resilience(&mut self) -> Value {
        let metadata = self.own_metadata();
        let mut spec = json!({ "targetRefs": self.targets(true, &metadata) });
        if self.chance(70) {
            spec["outbound"] = self.outbound();
        }
        if self.chance(50) {
            spec["inbound"] = json!({ "limits": { "inFlight": self.one(&[7, 8, 9]) } });
        }
        if self.chance(20) {
            spec["mode"] = json!(self.one(&["Observe", "Enforce"]));
        }
        if self.chance(20) {
            let path = json!({ "http": { "pathPrefix": self.one(&["/x", "/y"]) } });
            spec["routes"] = json!([{ "match": path, "outbound": self.outbound() }]);
        }
        json!({ "metadata": metadata, "spec": spec })
    }

    fn own_metadata(&mut self) -> Value {
        let name = self.one(&["k", "l", "m"]);
        self.metadata(name)
    }

    fn authorization(&mut self) -> Value {
        let metadata = self.own_metadata();
        let mut targets = self.targets(true, &metadata);
        if self.chance(25) {
            targets =
                json!([{ "kind": "ServiceAccount", "name": self.one(&["one", "two", "default"]) }]);
        }
        let mut spec = json!({ "targetRefs": targets });
        let from = json!([{ "namespace": self.one(&NAMESPACES) }]);
        spec["rules"] = match self.0.u8(..3) {
            0 => json!([{ "from": from, "to": [{ "http": { "pathPrefix": "/x" } }] }]),
            _ => json!([{ "from": from }]),
        };
        if self.chance(30) {
            spec["action"] = json!("Deny");
        }
        if self.chance(20) {
            spec["mode"] = json!("Audit");
        }
        json!({ "metadata": metadata, "spec": spec })
    }

    fn faults(&mut self) -> Value {
        let metadata = self.own_metadata();
        let fault = json!({ "percentage": self.one(&[1, 2, 3]), "abort": { "httpStatus": 503 } });
        let targets = self.targets(false, &metadata);
        json!({
            "metadata": metadata,
            "spec": { "targetRefs": targets, "endsAt": "2026-11-26T04:30:00Z", "faults": [fault] },
        })
    }

    fn mesh(&mut self) -> Value {
        let name = self.one(&["k", "l"]);
        let mut metadata = self.metadata(name);
        metadata
            .as_object_mut()
            .map(|fields: &mut Map<_, _>| fields.remove("namespace"));
        let mut spec = json!({});
        if self.chance(50) {
            spec["mtls"] = json!(self.one(&["Strict", "Permissive"]));
        }
        if self.chance(50) {
            spec["defaultAuthorization"] = json!(self.one(&["Allow", "Deny"]));
        }
        if self.chance(50) {
            spec["defaults"] = json!({ "deadline": self.one(&["4s", "5s"]) });
        }
        json!({ "metadata": metadata, "spec": spec })
    }

    fn parents(&mut self) -> Value {
        let mut parents = Vec::new();
        for place in 0..2 {
            if place > 0 && self.chance(60) {
                continue;
            }
            let mut parent = json!({ "group": "", "kind": "Service", "name": self.one(&SERVICES) });
            match self.0.u8(..4) {
                0 => parent["port"] = json!(self.one(&PORTS)),
                1 => parent["sectionName"] = json!(self.one(&PORT_NAMES)),
                _ => {}
            }
            if self.chance(25) {
                parent["namespace"] = json!(self.one(&NAMESPACES));
            }
            if self.chance(10) {
                parent = json!({ "name": "gateway" });
            }
            if !parents.contains(&parent) {
                parents.push(parent);
            }
        }
        json!(parents)
    }

    fn backends(&mut self) -> Value {
        let mut backends = Vec::new();
        for _ in 0..self.0.u8(..3) {
            let mut backend = json!({
                "name": self.one(&SERVICES), "port": self.one(&PORTS), "weight": self.one(&[0, 1, 9]),
            });
            if self.chance(30) {
                backend["namespace"] = json!(self.one(&NAMESPACES));
            }
            backends.push(backend);
        }
        json!(backends)
    }

    fn http_route(&mut self) -> Value {
        let metadata = self.own_metadata();
        let mut rules = Vec::new();
        for place in 0..=self.0.u8(..2) {
            let path = json!([{ "path": { "type": "PathPrefix", "value": format!("/{place}") } }]);
            let mut rule = json!({ "matches": path, "backendRefs": self.backends() });
            if self.chance(20) {
                rule["timeouts"] = json!({ "request": self.one(&["0s", "1s"]) });
            }
            if self.chance(20) {
                let backend = json!({ "name": self.one(&SERVICES), "port": self.one(&PORTS) });
                let mirror =
                    json!({ "type": "RequestMirror", "requestMirror": { "backendRef": backend } });
                rule["filters"] = json!([mirror]);
            }
            rules.push(rule);
        }
        json!({ "metadata": metadata, "spec": { "parentRefs": self.parents(), "rules": rules } })
    }

    fn grpc_route(&mut self) -> Value {
        let metadata = self.own_metadata();
        let mut rule = json!({ "backendRefs": self.backends() });
        if self.chance(50) {
            rule["matches"] = json!([{ "method": { "service": self.one(&["x.Y", "x.Z"]) } }]);
        }
        json!({ "metadata": metadata, "spec": { "parentRefs": self.parents(), "rules": [rule] } })
    }

    fn grant(&mut self) -> Value {
        let name = self.one(&["k", "l"]);
        let metadata = self.metadata(name);
        let kind = self.one(&["HTTPRoute", "GRPCRoute"]);
        let from = json!([{
            "group": "gateway.networking.k8s.io", "kind": kind, "namespace": self.one(&NAMESPACES),
        }]);
        let mut to = json!({ "group": "", "kind": "Service" });
        if self.chance(40) {
            to["name"] = json!(self.one(&SERVICES));
        }
        json!({ "metadata": metadata, "spec": { "from": from, "to": [to] } })
    }
}
