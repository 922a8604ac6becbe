//! What the API server asks before it admits an object, and the answer. Pure: an AdmissionReview in, one out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::{Value, json};

use crate::injector::{self, InjectorSettings, NamespaceContext, Outcome, Skip};
use crate::source::kubernetes::object;

/// Kubernetes cuts off what is longer than that, and drops them all when they are too long together.
const WARNING_CHARS_MAX: usize = 250;
const WARNINGS_MAX: usize = 10;
/// Of what is said to whoever is refused.
const MESSAGE_CHARS_MAX: usize = 8000;

/// Why a request is no AdmissionReview that can be answered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReview {
    #[error("this is not JSON: {0}")]
    Syntax(String),
    #[error("expected an AdmissionReview of admission.k8s.io/v1, found {0}")]
    Kind(String),
    #[error("the review has no request with a uid")]
    NoRequest,
}

/// What is known of a review before anything is made of it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Head {
    api_version: Option<String>,
    kind: Option<String>,
    request: Option<RequestHead>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RequestHead {
    uid: Option<String>,
    namespace: Option<String>,
}

/// The `request` of an AdmissionReview.
#[derive(Debug)]
pub struct Review(Value);

/// What is said of an object.
#[derive(Debug, Default, PartialEq)]
pub struct Verdict {
    /// Why it is refused; `None` when it is not.
    pub refusal: Option<String>,
    /// The object as it should be, when that is not as it is.
    pub changed: Option<Value>,
    pub warnings: Vec<String>,
}

impl Head {
    /// Takes next to no memory, whatever `body` is.
    pub fn read(body: &[u8]) -> Result<Self, NoReview> {
        let head: Self = serde_json::from_slice(body).map_err(|error| match error.classify() {
            Category::Data => NoReview::Kind(format!("something else: {error}")),
            _ => NoReview::Syntax(error.to_string()),
        })?;
        let [version, kind] = [&head.api_version, &head.kind].map(Option::as_deref);
        if version != Some("admission.k8s.io/v1") || kind != Some("AdmissionReview") {
            let said = |text: Option<&str>| text.map_or("null".to_owned(), |it| format!("{it:?}"));
            let found = format!("{} of {}", said(kind), said(version));
            return Err(NoReview::Kind(found.chars().take(200).collect()));
        }
        let uid = head.request.as_ref().and_then(|it| it.uid.as_deref());
        match uid {
            Some(uid) if !uid.is_empty() => Ok(head),
            _ => Err(NoReview::NoRequest),
        }
    }

    /// Of the object; empty for what has none.
    pub fn namespace(&self) -> &str {
        let request = self.request.as_ref();
        request
            .and_then(|it| it.namespace.as_deref())
            .unwrap_or_default()
    }

    /// The AdmissionReview that says no, whatever it is about.
    pub fn refused(&self, why: &str) -> Value {
        let uid = self.request.as_ref().and_then(|it| it.uid.as_deref());
        answer_of(json!({ "uid": uid, "allowed": false, "status": refusal_of(why) }))
    }
}

impl Review {
    /// Of a body that [`Head::read`] has taken.
    pub fn parse(body: &[u8]) -> Result<Self, NoReview> {
        let mut review: Value =
            serde_json::from_slice(body).map_err(|error| NoReview::Syntax(error.to_string()))?;
        let request = review.get_mut("request").map(Value::take);
        let request = request.filter(Value::is_object);
        request.map(Self).ok_or(NoReview::NoRequest)
    }

    /// Of the object; empty for what has none.
    pub fn namespace(&self) -> &str {
        self.0["namespace"].as_str().unwrap_or_default()
    }

    /// For logs: `Pod boutique/cart-`.
    pub fn title(&self) -> String {
        let text = |pointer: &str| self.0.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind/kind").unwrap_or("object");
        let name = text("/name").filter(|name| !name.is_empty());
        let name = name
            .or(text("/object/metadata/name"))
            .or(text("/object/metadata/generateName"));
        format!("{kind} {}/{}", self.namespace(), name.unwrap_or_default())
    }

    /// A pod is about to be created, of which nobody would be told if its namespace were what `namespace` says.
    pub fn is_unasked(&self, namespace: &NamespaceContext, settings: &InjectorSettings) -> bool {
        self.is_of_new_pod() && injector::is_unasked(&self.0["object"], namespace, settings)
    }

    fn is_of_new_pod(&self) -> bool {
        self.0["operation"] == "CREATE" && self.0.pointer("/kind/kind") == Some(&json!("Pod"))
    }

    /// The sidecar for a pod that is about to be created.
    pub fn inject(&self, namespace: &NamespaceContext, settings: &InjectorSettings) -> Verdict {
        if !self.is_of_new_pod() {
            return Verdict::default();
        }
        let pod = &self.0["object"];
        let warnings = injector::warnings(pod, namespace);
        match injector::inject(pod, namespace, settings) {
            Ok(Outcome::Injected(changed)) => Verdict {
                changed: Some(changed),
                warnings,
                ..Verdict::default()
            },
            // Asked for and not given is what somebody should be told; the rest is as it was meant.
            Ok(Outcome::Skipped(
                why @ (Skip::HostNetwork | Skip::OtherMesh(_) | Skip::Windows),
            )) => Verdict {
                warnings: vec![format!("not in the mesh: {why}")],
                ..Verdict::default()
            },
            Ok(Outcome::Skipped(_)) => Verdict::default(),
            Err(refusal) => Verdict {
                refusal: Some(format!(
                    "the pod would not be what you believe it is: {refusal}"
                )),
                ..Verdict::default()
            },
        }
    }

    /// Whether an object of ours makes sense, in the words of `weir validate`. It is not kept: two of one would be too much
    /// of one that is meant to be.
    pub fn validate(&mut self, trust_domain: &str) -> Verdict {
        let (new, old) = (&self.0["object"], &self.0["oldObject"]);
        // What is being deleted has nothing to say; what says the same as before may be labelled, or let go of.
        let is_new = new["spec"] != old["spec"] || old.is_null();
        let is_written = matches!(self.0["operation"].as_str(), Some("CREATE" | "UPDATE"));
        if !is_written || !is_new {
            return Verdict::default();
        }
        let mut object = self.0["object"].take();
        self.0["oldObject"].take();
        // Whoever asks may be nobody's API server: nothing is taken to be a map.
        let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
        if let Some(metadata) = metadata
            && metadata.get("namespace").is_none_or(Value::is_null)
            && !self.namespace().is_empty()
        {
            metadata.insert("namespace".to_owned(), json!(self.namespace()));
        }
        match object::read_own(&object, trust_domain) {
            Ok(read) => Verdict {
                warnings: read.warnings,
                ..Verdict::default()
            },
            Err(mistakes) => Verdict {
                refusal: Some(format!("\n{}", mistakes.join("\n"))),
                ..Verdict::default()
            },
        }
    }

    /// The AdmissionReview that says so.
    pub fn answer(&self, verdict: &Verdict) -> Value {
        let mut response = json!({
            "uid": self.0["uid"],
            "allowed": verdict.refusal.is_none(),
        });
        if let Some(refusal) = &verdict.refusal {
            response["status"] = refusal_of(refusal);
        }
        if let Some(changed) = &verdict.changed {
            let patch = json_patch::diff(&self.0["object"], changed);
            if !patch.0.is_empty() {
                let patch = serde_json::to_vec(&patch).expect("a patch is plain data");
                response["patchType"] = json!("JSONPatch");
                response["patch"] = json!(STANDARD.encode(patch));
            }
        }
        if !verdict.warnings.is_empty() {
            let warnings = verdict.warnings.iter().take(WARNINGS_MAX);
            let short = |warning: &String| warning.chars().take(WARNING_CHARS_MAX).collect();
            response["warnings"] = warnings.map(short).collect::<Vec<String>>().into();
        }
        answer_of(response)
    }
}

fn refusal_of(why: &str) -> Value {
    let message: String = why.chars().take(MESSAGE_CHARS_MAX).collect();
    json!({ "code": 403, "reason": "Forbidden", "message": message })
}

fn answer_of(response: Value) -> Value {
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
}
