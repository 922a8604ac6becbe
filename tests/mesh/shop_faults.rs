//! Every FaultPolicy of the shop, as it is: what it says goes wrong with calls to the Service that it names, for those
//! whom it names and for nobody else, and ends by itself.
//!
//! Services and accounts are the shop's own. In their pods is `lab-app`, which is there sooner, and has no policy, breaker or
//! fallback of the shop's between the fault and whoever looks at it.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http2::SendRequest;
use serde_json::{Value, json};
use tokio::time::timeout;
use weir_lab::metrics::Metrics;
use weir_lab::{Lab, build};

use crate::grpc::message;
use crate::world::{ADMIN_PORT, PATIENCE, alone, binary, eventually, http2_over, of_the_runtime};

/// What there is to call, and who calls.
const WORKLOADS: [&str; 8] = [
    "storefront",
    "checkout",
    "notifier",
    "recommendation",
    "payment",
    "catalog",
    "currency",
    "orderlog",
];

/// One file of `demo-boutique/faults`, and what is to be seen of it.
struct Expected {
    file: &'static str,
    /// A Service of the shop, with its port.
    service: &'static str,
    /// The gRPC method that is called.
    method: &'static str,
    /// Whom it is for.
    callers: &'static [&'static str],
    /// Whom it is not for, where it says so.
    spared: &'static [&'static str],
    /// Another method of that Service that it is not for, where it says so.
    spared_method: Option<&'static str>,
    /// Of a hundred calls.
    percent: usize,
    seen: Seen,
    lasts: Duration,
}

/// What a caller sees of a call that meets the fault.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    /// Its answer, so much later.
    Late(Duration),
    /// This status in place of the answer.
    Aborted(&'static str),
    /// That it broke off.
    Reset,
    /// Nothing at all.
    BlackHole,
    /// Nothing of it, as it is made again.
    GoAway,
    /// The answer's body, so many bytes of it a second.
    Slow(usize),
}

const MINUTE: Duration = Duration::from_secs(60);

const FILES: [Expected; 6] = [
    Expected {
        file: "brownout.yaml",
        service: "recommendation:8081",
        method: "boutique.v1.Recommendation/Echo",
        callers: &["storefront"],
        spared: &["checkout"],
        spared_method: None,
        percent: 50,
        seen: Seen::Aborted(UNAVAILABLE),
        lasts: MINUTE,
    },
    Expected {
        file: "crash-loop.yaml",
        service: "payment:50051",
        method: "boutique.v1.Payment/Echo",
        callers: &["checkout", "storefront"],
        spared: &[],
        spared_method: None,
        percent: 50,
        seen: Seen::Reset,
        lasts: MINUTE,
    },
    Expected {
        file: "goodbye.yaml",
        service: "catalog:3550",
        method: "boutique.v1.Catalog/Echo",
        callers: &["storefront", "checkout"],
        spared: &[],
        spared_method: None,
        percent: 10,
        seen: Seen::GoAway,
        lasts: MINUTE,
    },
    Expected {
        file: "partition.yaml",
        service: "payment:50051",
        method: "boutique.v1.Payment/Echo",
        callers: &["checkout"],
        spared: &["storefront"],
        spared_method: None,
        percent: 100,
        seen: Seen::BlackHole,
        lasts: MINUTE,
    },
    Expected {
        file: "slow-consumer.yaml",
        service: "orderlog:7300",
        method: "boutique.events.v1.OrderLog/Subscribe",
        callers: &["notifier"],
        spared: &["storefront"],
        spared_method: Some("boutique.events.v1.OrderLog/Echo"),
        percent: 100,
        seen: Seen::Slow(50),
        lasts: Duration::from_secs(120),
    },
    Expected {
        file: "slow-currency.yaml",
        service: "currency:7000",
        method: "boutique.v1.Currency/Echo",
        callers: &["storefront", "checkout"],
        spared: &[],
        spared_method: None,
        percent: 100,
        seen: Seen::Late(Duration::from_millis(300)),
        lasts: MINUTE,
    },
];

const OK: &str = "0";
const UNAVAILABLE: &str = "14";
/// Of a fault that is for every call.
const CALLS: usize = 3;
/// Of one that is for some.
const MANY_CALLS: usize = 300;
/// A call that nobody answers is given up.
const UNANSWERED: Duration = Duration::from_secs(1);
/// What is echoed: of a slow one, more than two seconds.
const PAYLOAD: [u8; 125] = [b'.'; 125];
/// Of a fault whose end is waited for.
const LEFT: Duration = Duration::from_secs(8);

impl Seen {
    /// As the metrics call it.
    fn kind(self) -> &'static str {
        match self {
            Self::Late(_) => "delay",
            Self::Aborted(_) => "abort",
            Self::Reset => "reset",
            Self::BlackHole => "black-hole",
            Self::GoAway => "go-away",
            Self::Slow(_) => "slow-body",
        }
    }
}

impl Expected {
    /// As answers and metrics call it.
    fn policy(&self) -> String {
        let name = self.file.strip_suffix(".yaml").expect("it is YAML");
        format!("boutique/{name}")
    }

    /// Six standard deviations around what the percentage says of so many calls; all of them, if it says so.
    fn is_its_share(&self, met: f64, calls: usize) -> bool {
        let (calls, share) = (calls as f64, self.percent as f64 / 100.0);
        let deviation = (calls * share * (1.0 - share)).sqrt();
        met > 0.0 && (met - calls * share).abs() <= 6.0 * deviation
    }
}

/// What came of one call.
#[derive(Debug)]
struct Answer {
    /// The policy, if the answer says that it is one's doing.
    fault: Option<String>,
    status: String,
    bytes: usize,
    /// From the call to the head, and from there to the end.
    head_after: Duration,
    body_after: Duration,
}

impl Answer {
    fn is_good(&self) -> bool {
        self.fault.is_none() && self.status == OK && self.bytes == message(&PAYLOAD).len()
    }
}

struct Shop {
    lab: Lab,
    /// Watched by the control plane, as the demo's `--policies` is.
    policies: tempfile::TempDir,
    connections: BTreeMap<(&'static str, &'static str), SendRequest<Full<Bytes>>>,
    _alone: MutexGuard<'static, ()>,
}

fn faults() -> PathBuf {
    build::root().join("demo-boutique/faults")
}

/// The shop's objects of a workload, with `lab-app` as its program.
fn stand_in(workload: &str) -> String {
    let file = build::root().join(format!("demo-boutique/k8s/{workload}.yaml"));
    let text = std::fs::read_to_string(file).expect("the shop has it");
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("it is YAML");
    for object in &mut objects {
        if object["kind"] != "Deployment" {
            continue;
        }
        object["spec"]["replicas"] = json!(1);
        let pod = &mut object["spec"]["template"]["spec"];
        // As the shop calls the port, for its Service finds it by name.
        let mut port = pod["containers"][0]["ports"][0].clone();
        port["containerPort"] = json!(9090);
        pod["volumes"] = json!([]);
        pod["containers"] = json!([{
            "name": workload,
            "image": "lab/app",
            "command": [binary("lab-app")],
            "ports": [port, {"containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1},
        }]);
    }
    let yaml = objects.iter().map(|object| format!("{object}\n---\n"));
    yaml.collect()
}

impl Shop {
    fn open() -> Self {
        let alone = alone();
        let policies = tempfile::tempdir().expect("a directory can be made");
        let namespace = build::root().join("demo-boutique/k8s/namespace.yaml");
        let stand_ins = WORKLOADS.map(stand_in).concat();
        let lab = Lab::builder()
            .mesh(true)
            .program(binary("weir-lab"))
            .manifests(namespace)
            .policies(policies.path())
            .yaml(stand_ins)
            .start()
            .expect("the lab starts");
        lab.wait_ready(PATIENCE).expect("its pods become ready");
        Self {
            lab,
            policies,
            connections: BTreeMap::new(),
            _alone: alone,
        }
    }

    /// As `cp` does it, so long ago.
    fn apply(&self, file: &str, ago: Duration) {
        let fresh = self.policies.path().join(format!(".{file}"));
        std::fs::copy(faults().join(file), &fresh).expect("it can be copied");
        let written = SystemTime::now() - ago;
        let copy = File::options().write(true).open(&fresh);
        let dated = copy.and_then(|copy| copy.set_modified(written));
        dated.expect("a file can be dated");
        std::fs::rename(&fresh, self.applied(file)).expect("it can be named");
    }

    fn applied(&self, file: &str) -> PathBuf {
        self.policies.path().join(file)
    }

    /// How much longer a sidecar says that the faults of a service last.
    fn seconds_left(&self, caller: &str, service: &str) -> Vec<f64> {
        let url = format!("http://127.0.0.1:{ADMIN_PORT}/state");
        let output =
            tokio::task::block_in_place(|| self.lab.exec(Some(caller), &["curl", "-s", &url]));
        let output = output.expect("the lab answers");
        let state: Value = serde_json::from_str(&output.stdout).expect("JSON");
        let faults = state["services"][format!("boutique/{service}")]["faults"].clone();
        let faults = faults.as_array().into_iter().flatten();
        let left = faults.map(|fault| fault["secondsLeft"].as_f64().expect("a number"));
        left.collect()
    }

    /// Of a caller's sidecar.
    fn counted(&self, caller: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
        let address = self.lab.pod(caller).expect("there is one").address;
        let admin = SocketAddr::new(address, ADMIN_PORT).to_string();
        let metrics = tokio::task::block_in_place(|| Metrics::scrape(self.lab.client(), &admin));
        let metrics = metrics.expect("a sidecar shows its metrics");
        metrics.sum(name, labels)
    }

    fn injected(&self, caller: &str, of: &Expected) -> f64 {
        let (policy, service) = (of.policy(), format!("boutique/{}", of.service));
        let labels = [
            ("policy", policy.as_str()),
            ("service", service.as_str()),
            ("kind", of.seen.kind()),
        ];
        self.counted(caller, "weir_faults_injected_total", &labels)
    }

    /// `None`: there was no answer.
    async fn call(
        &mut self,
        caller: &'static str,
        service: &'static str,
        method: &str,
        patience: Duration,
    ) -> Option<Answer> {
        let key = (caller, service);
        if self
            .connections
            .get(&key)
            .is_none_or(SendRequest::is_closed)
        {
            let dialed = tokio::task::block_in_place(|| self.lab.dial(Some(caller), service));
            let stream = of_the_runtime(dialed.expect("its sidecar accepts"));
            self.connections.insert(key, http2_over(stream).await);
        }
        let sender = self.connections.get_mut(&key).expect("just made");
        let request = Request::post(format!("http://{service}/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(message(&PAYLOAD)))
            .expect("a request");
        let begun = Instant::now();
        let response = timeout(patience, sender.send_request(request)).await;
        let response = response.ok()?.expect("its sidecar answers");
        let head_after = begun.elapsed();
        let text = |value: &hyper::header::HeaderValue| {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        let fault = response.headers().get("x-weir-fault").map(text);
        let early = response.headers().get("grpc-status").map(text);
        let body = response.into_body().collect().await.expect("its end");
        let late = body.trailers().and_then(|said| said.get("grpc-status"));
        Some(Answer {
            fault,
            status: late.map(text).or(early).expect("a call has a status"),
            bytes: body.to_bytes().len(),
            head_after,
            body_after: begun.elapsed() - head_after,
        })
    }

    /// The first use of a service subscribes to it.
    async fn is_well(&mut self, of: &Expected) {
        for caller in of.callers.iter().chain(of.spared) {
            let until = Instant::now() + PATIENCE;
            loop {
                let answer = self.call(caller, of.service, of.method, UNANSWERED).await;
                if answer.as_ref().is_some_and(Answer::is_good) {
                    break;
                }
                let what = format!("{caller} is answered by {}", of.service);
                assert!(
                    Instant::now() < until,
                    "{what}, without a fault: {answer:?}"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Somebody whom the fault is for sees it as often as it says.
    async fn meets(&mut self, caller: &'static str, of: &Expected) {
        let calls = if of.percent == 100 { CALLS } else { MANY_CALLS };
        let service = format!("boutique/{}", of.service);
        let retries = [("service", service.as_str())];
        let retried = |shop: &Self| shop.counted(caller, "weir_retries_total", &retries);
        let before = (self.injected(caller, of), retried(self));
        let patience = if of.seen == Seen::BlackHole {
            UNANSWERED
        } else {
            PATIENCE
        };
        let mut met = 0;
        for _ in 0..calls {
            let answer = self.call(caller, of.service, of.method, patience).await;
            if !answer.as_ref().is_some_and(Answer::is_good) {
                met += 1;
                assert!(of.shows(answer.as_ref()), "{}: {answer:?}", of.file);
            }
        }
        let injected = self.injected(caller, of) - before.0;
        println!(
            "{}: {caller} saw {met}, its sidecar counts {injected}",
            of.file
        );
        if of.seen == Seen::GoAway {
            // Some are told so again when they are made again; most get their answer.
            assert!(met as f64 <= injected / 2.0, "{met} of {injected}");
            assert!(retried(self) > before.1, "they are made again");
            assert!(of.is_its_share(injected, calls), "{}", of.file);
        } else {
            assert!(of.is_its_share(met as f64, calls), "{}", of.file);
            assert!(injected >= met as f64, "{}: {injected}", of.file);
        }
    }

    /// Somebody whom it is not for does not.
    async fn is_spared(&mut self, caller: &'static str, method: &str, of: &Expected) {
        let before = self.injected(caller, of);
        for _ in 0..CALLS {
            let answer = self.call(caller, of.service, method, PATIENCE).await;
            let answer = answer.expect("an answer");
            assert!(answer.is_good(), "{} {caller}: {answer:?}", of.file);
        }
        assert_eq!(self.injected(caller, of), before, "{} {caller}", of.file);
    }
}

impl Expected {
    /// Whether what came of a call is what this fault does.
    fn shows(&self, answer: Option<&Answer>) -> bool {
        let Some(answer) = answer else {
            return self.seen == Seen::BlackHole;
        };
        let is_whole = answer.status == OK && answer.bytes == message(&PAYLOAD).len();
        let is_as_said = match self.seen {
            Seen::Late(time) => is_whole && answer.head_after >= time,
            Seen::Aborted(status) => answer.status == status && answer.bytes == 0,
            Seen::Reset | Seen::GoAway => answer.status == UNAVAILABLE && answer.bytes == 0,
            Seen::BlackHole => false,
            // The first second's share may come at once.
            Seen::Slow(pace) => {
                let rest = answer.bytes.saturating_sub(pace) as f64;
                is_whole && answer.body_after.as_secs_f64() >= rest / pace as f64
            }
        };
        is_as_said && answer.fault.as_ref() == Some(&self.policy())
    }
}

#[test]
fn every_fault_policy_of_the_shop_has_an_expectation() {
    let is_yaml = |path: &Path| path.extension().is_some_and(|ending| ending == "yaml");
    let entries = std::fs::read_dir(faults()).expect("the shop has them");
    let files = entries.map(|entry| entry.expect("an entry").path());
    let name = |path: PathBuf| Some(path.file_name()?.to_str()?.to_owned());
    let mut there: Vec<String> = files
        .filter(|path| is_yaml(path))
        .filter_map(name)
        .collect();
    there.sort();
    assert_eq!(there, FILES.map(|expected| expected.file.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_policy_of_the_shop_does_what_it_says_to_whom_it_says_and_ends() {
    let mut shop = Shop::open();
    for of in &FILES {
        shop.is_well(of).await;
        shop.apply(of.file, Duration::ZERO);
        for caller in of.callers {
            let what = format!("{} is known to {caller}", of.file);
            eventually(&what, || !shop.seconds_left(caller, of.service).is_empty()).await;
            shop.meets(caller, of).await;
            if let Some(method) = of.spared_method {
                shop.is_spared(caller, method, of).await;
            }
        }
        // What the others' sidecars hear, they hear at the same time.
        for caller in of.spared {
            shop.is_spared(caller, of.method, of).await;
        }
        std::fs::remove_file(shop.applied(of.file)).expect("it is there");
        for caller in of.callers {
            let what = format!("{} is taken away", of.file);
            eventually(&what, || shop.seconds_left(caller, of.service).is_empty()).await;
        }
    }

    // Once more, as if they had been applied a while ago: nobody takes them away.
    for of in &FILES {
        shop.apply(of.file, of.lasts - LEFT);
    }
    for of in &FILES {
        for caller in of.callers {
            let what = format!("{} is in force for {caller}", of.file);
            let policies = FILES
                .iter()
                .filter(|other| other.service == of.service && other.callers.contains(caller));
            let policies = policies.count();
            eventually(&what, || {
                let left = shop.seconds_left(caller, of.service);
                let is_short = |left: &f64| *left <= LEFT.as_secs_f64();
                left.len() == policies && left.iter().all(is_short)
            })
            .await;
        }
    }
    for of in &FILES {
        for caller in of.callers {
            let what = format!("{} is over for {caller}", of.file);
            eventually(&what, || shop.seconds_left(caller, of.service).is_empty()).await;
        }
        assert!(shop.applied(of.file).exists());
        shop.is_well(of).await;
    }
}
