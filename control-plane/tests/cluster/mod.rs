//! A control plane on a Kubernetes API: an API server in this process, or a real one.

#![allow(dead_code, unreachable_pub)] // each test binary uses its part of it

pub mod double;
pub mod real;
pub mod store;

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use weir_config::Kind;
use weir_config::pb;
use weir_config::pb::identity_client::IdentityClient;
use weir_control_plane::control_plane::{Cluster as Where, ControlPlane, Settings, StartError};
use weir_control_plane::injector::InjectorSettings;
use weir_control_plane::kubernetes;
use weir_control_plane::source::kubernetes::resource;

use crate::world::{self, Credentials, PATIENCE, Stream};
use double::Double;
use real::Real;

/// The author of what tests write, as far as the API server is concerned.
const AUTHOR: &str = "test";

pub enum Backend {
    Double(Double),
    Real(Real),
}

pub struct Cluster {
    pub backend: Backend,
    pub config: kube::Config,
    pub client: Client,
    pub folder: tempfile::TempDir,
}

impl Cluster {
    /// An API server in this process, with the boutique's smallest corner in it.
    pub async fn double() -> Self {
        let double = Double::start().await;
        let url = format!("http://{}", double.address());
        let config = kube::Config::new(url.parse().expect("a URL"));
        let cluster = Self::new(Backend::Double(double), config).await;
        cluster.furnish().await;
        cluster
    }

    pub async fn real(real: Real) -> Self {
        let config = real.config();
        Self::new(Backend::Real(real), config).await
    }

    async fn new(backend: Backend, config: kube::Config) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Self {
            backend,
            client: Client::try_from(config.clone()).expect("a client"),
            config,
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    pub fn api(&self) -> &Double {
        match &self.backend {
            Backend::Double(double) => double,
            Backend::Real(_) => {
                panic!("this is a real API server: it does not misbehave on demand")
            }
        }
    }

    /// Our kinds, with no schema: what is malformed has to get as far as the control plane, as it does past the
    /// schema of an older version.
    pub async fn install_kinds(&self) {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_ours()) {
            let resource = resource(kind);
            let scope = match kind {
                Kind::MeshConfig => "Cluster",
                _ => "Namespaced",
            };
            let definition = json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": { "name": format!("{}.{}", resource.plural, resource.group) },
                "spec": {
                    "group": resource.group, "scope": scope,
                    "names": { "kind": resource.kind, "plural": resource.plural, "singular": resource.kind.to_lowercase() },
                    "versions": [{
                        "name": resource.version, "served": true, "storage": true,
                        "subresources": { "status": {} },
                        "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
                    }],
                },
            });
            self.install(&definition.to_string()).await;
        }
    }

    /// CustomResourceDefinitions; returns when what they define is served, which is a moment after they are accepted.
    pub async fn install(&self, definitions: &str) {
        let definitions: Vec<Value> = serde_saphyr::from_multiple(definitions).expect("YAML");
        for definition in &definitions {
            self.apply(&definition.to_string()).await;
        }
        for definition in definitions {
            let (spec, version) = (&definition["spec"], &definition["spec"]["versions"][0]);
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            let resource = ApiResource {
                group: text(&spec["group"]),
                version: text(&version["name"]),
                api_version: format!("{}/{}", text(&spec["group"]), text(&version["name"])),
                kind: text(&spec["names"]["kind"]),
                plural: text(&spec["names"]["plural"]),
            };
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            let deadline = tokio::time::Instant::now() + PATIENCE;
            while let Err(error) = api.list(&kube::api::ListParams::default()).await {
                let late = tokio::time::Instant::now() > deadline;
                assert!(!late, "{} is not served: {error}", resource.kind);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    pub async fn furnish(&self) {
        for name in ["boutique", "weir-system"] {
            let labels = "{weir.dev/inject: enabled}";
            self.apply(&format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {labels}}}\n"
            ))
            .await;
        }
        for account in ["frontend", "catalog", "cart"] {
            self.apply(&format!(
                "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {account}, namespace: boutique}}\n"
            ))
            .await;
        }
        self.apply(&service("catalog", "10.96.0.101")).await;
        self.apply(&world::policy("catalog", "2s")).await;
        let pods = ["frontend-0", "catalog-0", "catalog-1", "cart-0"];
        for (number, name) in pods.iter().enumerate() {
            self.pod(name, &format!("10.1.0.{}", number + 1)).await;
        }
        let endpoints = [("10.1.0.2", "catalog-0"), ("10.1.0.3", "catalog-1")];
        self.apply(&world::slice("catalog", &endpoints)).await;
    }

    /// A pod of namespace boutique that runs, at `ip`.
    pub async fn pod(&self, name: &str, ip: &str) {
        let app = name.rsplit_once('-').map_or(name, |(app, _)| app);
        let image = "image: registry.invalid/none";
        self.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: boutique, labels: {{app: {app}}}}}\n\
             spec: {{serviceAccountName: {app}, containers: [{{name: {app}, {image}}}], \
             initContainers: [{{name: weir-proxy, {image}, env: [{{name: WEIR_POD_NAME}}]}}]}}\n"
        ))
        .await;
        let status = json!({ "status": {
            "podIP": ip, "podIPs": [{ "ip": ip }], "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True" }],
        } });
        let pods = self.objects("v1", "Pod", "boutique");
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .expect("a status");
    }

    pub fn settings(&self) -> Settings {
        Settings {
            cluster: Where::Kubernetes(Box::new(kubernetes::Settings {
                api: self.config.clone(),
                namespace: "weir-system".to_owned(),
                pod: "weir-control-plane-0".to_owned(),
                service: "weir-control-plane".to_owned(),
                webhook: "127.0.0.1:0".parse().expect("an address"),
                linger: Duration::ZERO,
                injector: InjectorSettings::default(),
            })),
            operator_socket: None,
            stalled_after: PATIENCE,
            ..world::settings(self.folder.path())
        }
    }

    pub async fn start(&self) -> ControlPlane {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let started = tokio::time::timeout_at(deadline, ControlPlane::start(self.settings()));
            match started.await.expect("in time") {
                Ok(plane) => return plane,
                // The journal's lock goes with the last of the threads of the one before.
                Err(StartError::Journal(_)) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("it starts: {error}"),
            }
        }
    }

    /// Server-side apply of one YAML document.
    pub async fn apply(&self, yaml: &str) {
        self.try_apply(yaml).await.expect("applied");
    }

    pub async fn try_apply(&self, yaml: &str) -> Result<Value, kube::Error> {
        let yaml = yaml.trim_end().trim_end_matches("---");
        let object: Value = serde_saphyr::from_str(yaml).expect("YAML");
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let api = self.objects(
            text("/apiVersion").expect("an apiVersion"),
            text("/kind").expect("a kind"),
            text("/metadata/namespace").unwrap_or_default(),
        );
        let params = PatchParams::apply(AUTHOR).force();
        let name = text("/metadata/name").expect("a name");
        let applied = api.patch(name, &params, &Patch::Apply(&object)).await?;
        Ok(serde_json::to_value(applied).expect("JSON"))
    }

    pub async fn delete(&self, kind: Kind, name: &str) {
        let now = DeleteParams::default().grace_period(0);
        let api = self.objects(kind.api_version(), kind.name(), "boutique");
        api.delete(name, &now).await.expect("deleted");
    }

    pub async fn get(&self, kind: Kind, name: &str) -> Value {
        let api = self.objects(kind.api_version(), kind.name(), "boutique");
        let object = api.get(name).await.expect("it is there");
        serde_json::to_value(object).expect("JSON")
    }

    /// Waits until an object is as `is` wants it.
    pub async fn until(&self, kind: Kind, name: &str, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let object = self.get(kind, name).await;
            if is(&object) {
                return object;
            }
            let late = tokio::time::Instant::now() > deadline;
            assert!(!late, "{kind} {name} stays {:#}", object["status"]);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn objects(&self, api_version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let is_meant = |known: &Kind| known.name() == kind && known.api_version() == api_version;
        let known = Kind::ALL.into_iter().find(is_meant);
        let resource = known.map_or_else(|| self.other(api_version, kind), resource);
        if namespace.is_empty() {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        }
    }

    fn other(&self, api_version: &str, kind: &str) -> ApiResource {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = kube::core::GroupVersionKind::gvk(group, version, kind);
        ApiResource::from_gvk(&gvk)
    }

    /// As the kubelet projects it into a pod.
    pub async fn token(&self, pod: &str, audiences: &[&str]) -> String {
        let account = pod.rsplit_once('-').map_or(pod, |(app, _)| app);
        match &self.backend {
            Backend::Double(double) => {
                let claims = json!({ "aud": audiences, "sub": pod }).to_string();
                let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
                let reviewed = audiences.contains(&"weir.dev");
                double.review(
                    &token,
                    json!({
                        "authenticated": reviewed, "audiences": ["weir.dev"],
                        "user": {
                            "username": format!("system:serviceaccount:boutique:{account}"),
                            "extra": { "authentication.kubernetes.io/pod-name": [pod] },
                        },
                    }),
                );
                token
            }
            Backend::Real(_) => {
                let uid = self.get(Kind::Pod, pod).await["metadata"]["uid"].clone();
                let request = json!({
                    "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                    "spec": {
                        "audiences": audiences, "expirationSeconds": 3600,
                        "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid },
                    },
                });
                let accounts = self.objects("v1", "ServiceAccount", "boutique");
                let answer: Value = accounts
                    .create_subresource("token", account, &PostParams::default(), &request)
                    .await
                    .expect("a token");
                answer["status"]["token"]
                    .as_str()
                    .expect("a token")
                    .to_owned()
            }
        }
    }

    pub async fn certify(
        &self,
        address: SocketAddr,
        pod: &str,
        token: String,
    ) -> Result<Credentials, tonic::Status> {
        let key = KeyPair::generate().expect("a key");
        let csr = CertificateParams::default();
        let csr = csr.serialize_request(&key).expect("a request");
        let request = pb::CertifyRequest {
            csr: csr.der().to_vec().into(),
            token,
            pod_namespace: "boutique".to_owned(),
            pod_name: pod.to_owned(),
        };
        let bundle = world::trust_bundle(self.folder.path());
        let channel = world::channel(address, &bundle, None);
        let channel = channel.await.expect("TLS");
        let response = IdentityClient::new(channel).certify(request).await?;
        let response = response.into_inner();
        let der =
            |bytes: &prost::bytes::Bytes| rustls_pki_types::CertificateDer::from(bytes.to_vec());
        Ok(Credentials {
            chain: response.chain.iter().map(der).collect(),
            key: key.serialize_der(),
            trust_bundle: response.trust_bundle.iter().map(der).collect(),
        })
    }

    /// A sidecar of `pod`, certified by its service account's token, with its first push acknowledged.
    pub async fn connect(&self, plane: &ControlPlane, pod: &str) -> Stream {
        self.connect_at(plane.address, pod).await
    }

    pub async fn connect_at(&self, address: SocketAddr, pod: &str) -> Stream {
        let token = self.token(pod, &["weir.dev"]).await;
        let credentials = self.certify(address, pod, token).await;
        let credentials = credentials.expect("a certificate");
        let bundle = world::trust_bundle(self.folder.path());
        let channel = world::channel(address, &bundle, Some(&credentials));
        let channel = channel.await.expect("TLS");
        let mut stream = Stream::open(channel, world::hello("boutique", pod))
            .await
            .expect("a stream");
        stream.next().await;
        stream
    }
}

/// Of namespace boutique; its address is of a range that real API servers of the tests give out.
pub fn service(name: &str, ip: &str) -> String {
    world::service(name, ip)
}

/// Waits until `is`, looking again and again.
pub async fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
