//! An API server in this process: the part of Kubernetes' HTTP API that a controller lives on.
//!
//! Lists in pages, watches from a version on with bookmarks and 410 Gone, optimistic locking, merge patches,
//! server-side apply, status subresources, TokenReviews. And what real ones do on bad days, on demand: away, slow,
//! cutting connections, forgetting history.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::store::{Failure, Key, Store, failure};

type Body = BoxBody<Bytes, Infallible>;
type Answer = Response<Body>;

const BOOKMARK_EVERY: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub struct Double(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    state: Mutex<State>,
    /// Changes when all connections are to end.
    cut: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    store: Store,
    away: bool,
    latency: Duration,
    /// Kinds that are not installed.
    absent: Vec<String>,
    /// Paths at which nothing may be written.
    refused: Vec<String>,
    /// Kinds of whose changes nobody who watches is told.
    held: Vec<String>,
    reviews: HashMap<String, Value>,
    /// Tokens that are being reviewed, and the most that ever were at a time.
    reviewing: (usize, usize),
    /// Lists that go on: what is left of them.
    pages: BTreeMap<u64, (u64, Vec<Value>)>,
    requests: Vec<String>,
}

impl Double {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let double = Self(Arc::new(Inner {
            address: listener.local_addr().expect("an address"),
            state: Mutex::default(),
            cut: watch::Sender::new(0),
        }));
        tokio::spawn(double.clone().accept(listener));
        double
    }

    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Nobody is answered, and whoever is connected is cut off.
    pub fn set_away(&self, away: bool) {
        self.state().away = away;
        self.cut();
    }

    pub fn cut(&self) {
        self.0.cut.send_modify(|cuts| *cuts += 1);
    }

    pub fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    /// Not installed, or not any more: then its objects are gone with it, and whoever watches them is cut off untold.
    pub fn set_absent(&self, resource: &str) {
        let mut state = self.state();
        let objects = &mut state.store.objects;
        objects.retain(|key, _| key.resource != resource);
        state.absent.push(resource.to_owned());
        drop(state);
        self.cut();
    }

    pub fn install(&self, resource: &str) {
        self.state().absent.retain(|absent| absent != resource);
    }

    /// From now on nothing is written at such a path, as where somebody else's webhook is broken.
    pub fn refuse_writes(&self, path: &str) {
        self.state().refused.push(path.to_owned());
    }

    /// Whoever watches this kind hears nothing new of it until [`Self::release`]: a watch that lags. A list is as ever.
    pub fn hold_watches(&self, resource: &str) {
        self.state().held.push(resource.to_owned());
    }

    pub fn release(&self, resource: &str) {
        let mut state = self.state();
        state.held.retain(|held| held != resource);
        state.store.changed.send_modify(|_| {});
    }

    pub fn compact(&self) {
        self.state().store.compact();
    }

    /// A change that happens while nobody watches.
    pub fn behind_its_back(&self, resource: &str, yaml: &str) {
        let yaml = yaml.trim_end().trim_end_matches("---");
        let object: Value = serde_saphyr::from_str(yaml).expect("YAML");
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let key = Key {
            resource: resource.to_owned(),
            namespace: text("namespace").to_owned(),
            name: text("name").to_owned(),
        };
        let applied = self.state().store.apply(&key, "test", true, object, false);
        applied.expect("applied");
    }

    pub fn forget(&self, resource: &str, namespace: &str, name: &str) {
        let key = Key {
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        self.state().store.delete(&key).expect("it is there");
    }

    /// What a TokenReview of `token` says.
    pub fn review(&self, token: &str, status: Value) {
        self.state().reviews.insert(token.to_owned(), status);
    }

    /// The most tokens that were being reviewed at a time.
    pub fn reviewing_max(&self) -> usize {
        self.state().reviewing.1
    }

    /// `GET api/v1/pods?limit=500`, in order.
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no test panics under it")
    }

    async fn accept(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            if self.state().away {
                continue;
            }
            let (double, mut cut) = (self.clone(), self.0.cut.subscribe());
            cut.mark_unchanged();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let double = double.clone();
                    async move { Ok::<_, Infallible>(double.answer(request).await) }
                });
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    _ = serving => {}
                    _ = cut.changed() => {}
                }
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let latency = {
            let mut state = self.state();
            let line = format!("{} {}", request.method(), request.uri());
            if line.ends_with("/tokenreviews") {
                let (now, max) = state.reviewing;
                state.reviewing = (now + 1, max.max(now + 1));
            }
            state.requests.push(line);
            state.latency
        };
        tokio::time::sleep(latency).await;
        let (parts, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        let content: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
        let query: HashMap<String, String> = parts.uri.query().map(parse_query).unwrap_or_default();
        let kind = parts.headers.get("content-type");
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let result = self.handle(&parts.method, parts.uri.path(), &query, kind, content);
        result.unwrap_or_else(|failure| {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": failure.message, "reason": failure.reason, "code": failure.code,
            });
            json_answer(failure.code, &status)
        })
    }

    fn handle(
        &self,
        method: &Method,
        path: &str,
        query: &HashMap<String, String>,
        content_type: &str,
        content: Value,
    ) -> Result<Answer, Failure> {
        if path.ends_with("/tokenreviews") {
            return Ok(json_answer(201, &self.token_review(content)));
        }
        let refuses = |part: &String| *method != Method::GET && path.contains(part.as_str());
        if self.state().refused.iter().any(refuses) {
            let message = "failed calling webhook \"policy.example\": it does not answer";
            return Err(failure(500, "InternalError", message.to_owned()));
        }
        let (key, subresource) = parse_path(path)
            .ok_or_else(|| failure(404, "NotFound", format!("no such path: {path}")))?;
        if self.state().absent.contains(&key.resource) {
            let message = "the server could not find the requested resource".to_owned();
            return Err(failure(404, "NotFound", message));
        }
        let status = subresource == "status";
        let flag = |name: &str| {
            query
                .get(name)
                .is_some_and(|value| value == "true" || value == "1")
        };
        let mut state = self.state();
        let object = match *method {
            Method::GET if key.name.is_empty() && flag("watch") => {
                drop(state);
                return Ok(self.watch(key, query.clone()));
            }
            Method::GET if key.name.is_empty() => return state.list(&key, query),
            Method::GET => state.store.get(&key)?,
            Method::POST => {
                let name = content["metadata"]["name"].as_str();
                let name = name.unwrap_or_default().to_owned();
                let created = state.store.create(Key { name, ..key }, content)?;
                return Ok(json_answer(201, &created));
            }
            Method::PUT => state.store.replace(&key, content, status)?,
            Method::PATCH if content_type.contains("apply-patch") => {
                let manager = query.get("fieldManager").cloned().unwrap_or_default();
                if manager.is_empty() {
                    let message = "fieldManager is required for apply patch".to_owned();
                    return Err(failure(400, "BadRequest", message));
                }
                let force = flag("force");
                state.store.apply(&key, &manager, force, content, status)?
            }
            Method::PATCH => state.store.merge(&key, &content, status)?,
            Method::DELETE => state.store.delete(&key)?,
            _ => {
                let message = "method not allowed".to_owned();
                return Err(failure(405, "MethodNotAllowed", message));
            }
        };
        Ok(json_answer(200, &object))
    }

    fn token_review(&self, mut review: Value) -> Value {
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        let refused = json!({ "authenticated": false, "error": "invalid bearer token" });
        let mut state = self.state();
        state.reviewing.0 -= 1;
        review["status"] = state.reviews.get(token).cloned().unwrap_or(refused);
        review["metadata"] = json!({});
        review
    }

    /// A stream of events, one JSON document a line.
    fn watch(&self, key: Key, query: HashMap<String, String>) -> Answer {
        let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(16);
        let double = self.clone();
        tokio::spawn(async move {
            let number = |name: &str| query.get(name).and_then(|value| value.parse::<u64>().ok());
            let mut version = number("resourceVersion").unwrap_or(0);
            let bookmarks = query
                .get("allowWatchBookmarks")
                .is_some_and(|it| it == "true");
            let selector = query.get("fieldSelector").cloned().unwrap_or_default();
            let matches = |object: &Key, value: &Value| {
                (key.namespace.is_empty() || object.namespace == key.namespace)
                    && selected(&selector, value)
            };
            let ends = number("timeoutSeconds").unwrap_or(300);
            let ends = tokio::time::Instant::now() + Duration::from_secs(ends);
            // Not a pause after each change: those of other kinds would put it off for ever.
            let mut marks = tokio::time::interval(BOOKMARK_EVERY);
            marks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            marks.reset();
            let mut changed = double.state().store.changed.subscribe();
            let line = |value: &Value| Ok(Frame::data(Bytes::from(format!("{value}\n"))));
            loop {
                changed.borrow_and_update();
                let (events, now) = {
                    let state = double.state();
                    let events = state.store.since(version, &key.resource, matches);
                    match state.held.contains(&key.resource) {
                        true => (Some(Vec::new()), version),
                        false => (events, state.store.version),
                    }
                };
                let Some(events) = events else {
                    let gone = json!({ "type": "ERROR", "object": {
                        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
                        "reason": "Expired", "message": format!("too old resource version: {version} ({now})"),
                    } });
                    let _ = sender.send(line(&gone)).await;
                    return;
                };
                for event in &events {
                    if sender.send(line(event)).await.is_err() {
                        return;
                    }
                }
                version = now;
                tokio::select! {
                    _ = changed.changed() => {}
                    _ = marks.tick(), if bookmarks => {
                        let mark = json!({ "type": "BOOKMARK", "object": {
                            "kind": "Bookmark", "apiVersion": "v1", "metadata": { "resourceVersion": version.to_string() },
                        } });
                        if sender.send(line(&mark)).await.is_err() {
                            return;
                        }
                    }
                    () = tokio::time::sleep_until(ends) => return,
                    () = sender.closed() => return,
                }
            }
        });
        let body = BodyExt::boxed(StreamBody::new(ReceiverStream::new(receiver)));
        Response::builder()
            .header("content-type", "application/json")
            .body(body)
            .expect("an answer")
    }
}

impl State {
    fn list(&mut self, key: &Key, query: &HashMap<String, String>) -> Result<Answer, Failure> {
        let selector = query.get("fieldSelector").cloned().unwrap_or_default();
        let limit = query.get("limit").and_then(|limit| limit.parse().ok());
        let (version, mut items) = match query.get("continue") {
            Some(token) => {
                let token = token.parse().unwrap_or(0);
                let expired =
                    || failure(410, "Expired", "the continue token is too old".to_owned());
                self.pages.remove(&token).ok_or_else(expired)?
            }
            None => {
                let all = self.store.objects.iter().filter(|(object, value)| {
                    object.resource == key.resource
                        && (key.namespace.is_empty() || object.namespace == key.namespace)
                        && selected(&selector, value)
                });
                let items = all.map(|(_, value)| without_type(value, &key.resource));
                (self.store.version, items.collect())
            }
        };
        let rest = items.split_off(limit.unwrap_or(usize::MAX).min(items.len()));
        let mut metadata = json!({ "resourceVersion": version.to_string() });
        if !rest.is_empty() {
            let token = self.pages.keys().last().map_or(1, |last| last + 1);
            self.pages.insert(token, (version, rest));
            metadata["continue"] = json!(token.to_string());
        }
        let list =
            json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items });
        Ok(json_answer(200, &list))
    }
}

/// Items of built-in kinds do not say what they are.
fn without_type(object: &Value, resource: &str) -> Value {
    let mut object = object.clone();
    if resource.starts_with("api/")
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    object
}

/// `a.b!=x,c=y`
fn selected(selector: &str, object: &Value) -> bool {
    selector
        .split(',')
        .filter(|term| !term.is_empty())
        .all(|term| {
            let (path, wanted, equal) = match term.split_once("!=") {
                Some((path, value)) => (path, value, false),
                None => {
                    let (path, value) = term.split_once('=').unwrap_or((term, ""));
                    (path, value.trim_start_matches('='), true)
                }
            };
            let pointer = format!("/{}", path.replace('.', "/"));
            let found = object.pointer(&pointer).and_then(Value::as_str);
            (found.unwrap_or_default() == wanted) == equal
        })
}

/// The object or collection, and the subresource.
fn parse_path(path: &str) -> Option<(Key, &str)> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (prefix, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => (format!("api/{version}"), rest),
        ["apis", group, version, rest @ ..] => (format!("apis/{group}/{version}"), rest),
        _ => return None,
    };
    let key = |namespace: &str, resource: &str, name: &str| Key {
        resource: format!("{prefix}/{resource}"),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    match rest {
        ["namespaces", namespace, resource] => Some((key(namespace, resource, ""), "")),
        ["namespaces", namespace, resource, name] => Some((key(namespace, resource, name), "")),
        ["namespaces", namespace, resource, name, sub] => {
            Some((key(namespace, resource, name), sub))
        }
        [resource] => Some((key("", resource, ""), "")),
        [resource, name] => Some((key("", resource, name), "")),
        [resource, name, sub] => Some((key("", resource, name), sub)),
        _ => None,
    }
}

fn parse_query(query: &str) -> HashMap<String, String> {
    let decode = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            match byte {
                b'+' => bytes.push(b' '),
                b'%' => {
                    let hex: Vec<u8> = rest.by_ref().take(2).collect();
                    let hex = std::str::from_utf8(&hex).unwrap_or("00");
                    bytes.push(u8::from_str_radix(hex, 16).unwrap_or(0));
                }
                byte => bytes.push(byte),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

fn json_answer(code: u16, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string()));
    Response::builder()
        .status(StatusCode::from_u16(code).expect("a status"))
        .header("content-type", "application/json")
        .body(BodyExt::boxed(body))
        .expect("an answer")
}
