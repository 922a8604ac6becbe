//! Tokens of service accounts, as the kubelet projects them into a pod, reviewed by the API server.
//!
//! ```text
//!   ours alone? ◀─ audiences ─┐
//!   token ─▶ TokenReview ─▶ authenticated ─▶ system:serviceaccount:NAMESPACE:NAME ─▶ bound to this very pod?
//! ```
//!
//! Anybody may present one, and the API server has others to serve: so many are reviewed at a time, and of one address so
//! many wait for that.
//!
//! A token that others accept, too, could have been stolen from them: it has to be for this control plane and
//! nobody else. The API server itself refuses a token whose pod is gone or is another of the same name.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weir_config::resource::ObjectName;

use super::{TOKEN_CHARS_MAX, TokenError};
use crate::shares::{Share, Shares};
use crate::spiffe::is_name;

const PATIENCE: Duration = Duration::from_secs(5);
/// Together with the review less than a sidecar waits, which is ten seconds.
const TURN_PATIENCE: Duration = Duration::from_secs(4);
/// Reviews at a time. One takes milliseconds.
const REVIEWS_MAX: usize = 16;
/// That are reviewed or wait for it: as many sidecars as start at once in a large cluster.
const ASKING_MAX: usize = 4096;
/// Of one address, which where addresses are translated is that of a node.
const ASKING_OF_ONE_MAX: usize = 256;
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

#[derive(Clone)]
pub struct TokenReviews {
    client: Client,
    audience: String,
    asking: Shares,
    turns: Arc<Semaphore>,
}

/// One token may be reviewed while it is held.
pub struct Turn {
    _share: Share,
    _of_all: OwnedSemaphorePermit,
}

impl TokenReviews {
    pub fn new(client: Client, audience: &str) -> Self {
        Self {
            client,
            audience: audience.to_owned(),
            asking: Shares::new(ASKING_MAX, ASKING_OF_ONE_MAX),
            turns: Arc::new(Semaphore::new(REVIEWS_MAX)),
        }
    }

    /// Waits until a token that `peer` presents may be reviewed.
    pub async fn turn(&self, peer: IpAddr) -> Result<Turn, TokenError> {
        let busy = || TokenError::Unavailable("too many are being reviewed".to_owned());
        let share = self.asking.take(peer, 1).ok_or_else(busy)?;
        let turn = tokio::time::timeout(TURN_PATIENCE, self.turns.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| busy())?;
        Ok(Turn {
            _share: share,
            _of_all: turn.expect("the semaphore is never closed"),
        })
    }

    /// The service account of `pod`, when `token` is this pod's.
    pub async fn check(&self, pod: &ObjectName, token: &str) -> Result<String, TokenError> {
        if !is_name(&pod.namespace) || !is_name(&pod.name) {
            return Err(TokenError::NoPod);
        }
        let token = token.trim();
        if token.is_empty() || token.len() > TOKEN_CHARS_MAX {
            return Err(TokenError::Wrong);
        }
        let review = tokio::time::timeout(PATIENCE, self.review(token)).await;
        let review = review
            .map_err(|_| TokenError::Unavailable("the API server does not answer".to_owned()))?
            .map_err(|error| TokenError::Unavailable(error.to_string()))?;
        judge(&review, &self.audience, token, pod)
    }

    async fn review(&self, token: &str) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token, "audiences": [self.audience] },
        });
        let request = http::Request::post("/apis/authentication.k8s.io/v1/tokenreviews")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(serde_json::to_vec(&review)?)?;
        Ok(self.client.request(request).await?)
    }
}

/// What a review means. Whatever it does not say counts against the token.
fn judge(
    review: &Value,
    audience: &str,
    token: &str,
    pod: &ObjectName,
) -> Result<String, TokenError> {
    let status = &review["status"];
    if status["authenticated"] != true {
        let reason = status["error"].as_str().unwrap_or("no reason was given");
        return Err(TokenError::Rejected(reason.chars().take(200).collect()));
    }
    let reviewed = strings(&status["audiences"]);
    if reviewed != [audience] {
        // A server that knows no audiences answers for its own.
        return Err(TokenError::Audience(reviewed));
    }
    let claimed = audiences(token);
    if claimed != [audience] {
        return Err(TokenError::Audience(claimed));
    }
    let user = status["user"]["username"].as_str().unwrap_or_default();
    let account = user
        .strip_prefix(SERVICE_ACCOUNT)
        .and_then(|rest| rest.split_once(':'));
    let Some((namespace, account)) = account.filter(|(_, account)| is_name(account)) else {
        return Err(TokenError::NoServiceAccount(
            user.chars().take(200).collect(),
        ));
    };
    let bound = strings(&status["user"]["extra"][POD_NAME]);
    if namespace != pod.namespace || bound != [pod.name.as_str()] {
        return Err(TokenError::OtherPod);
    }
    Ok(account.to_owned())
}

fn strings(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// For whom the token says that it is. The review tells only whether our audience is among them.
fn audiences(token: &str) -> Vec<String> {
    let claims = token
        .split('.')
        .nth(1)
        .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims: Value = claims
        .and_then(|claims| serde_json::from_slice(&claims).ok())
        .unwrap_or_default();
    match &claims["aud"] {
        Value::String(one) => vec![one.clone()],
        several => strings(several),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(audiences: &Value) -> String {
        let claims = json!({ "aud": audiences }).to_string();
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    fn review(change: impl FnOnce(&mut Value)) -> Value {
        let mut status = json!({
            "authenticated": true,
            "audiences": ["weir.dev"],
            "user": {
                "username": "system:serviceaccount:boutique:cart",
                "extra": { POD_NAME: ["cart-0"], "authentication.kubernetes.io/pod-uid": ["u"] },
            },
        });
        change(&mut status);
        json!({ "status": status })
    }

    /// security.md, C-2.
    #[test]
    fn only_a_token_of_this_pod_for_us_alone_is_good() {
        let pod = ObjectName::new("boutique", "cart-0");
        let ours = token(&json!(["weir.dev"]));
        let check = |review: &Value, token: &str| judge(review, "weir.dev", token, &pod);
        assert_eq!(check(&review(|_| {}), &ours), Ok("cart".to_owned()));
        let one = token(&json!("weir.dev"));
        assert_eq!(check(&review(|_| {}), &one), Ok("cart".to_owned()));

        let several = token(&json!(["weir.dev", "vault"]));
        for token in [several.as_str(), "", "a.b.c", "e30.e30.c2ln"] {
            let refused = check(&review(|_| {}), token);
            assert!(
                matches!(refused, Err(TokenError::Audience(_))),
                "{token}: {refused:?}"
            );
        }
        type Change = fn(&mut Value);
        let rows: [(&str, Change); 9] = [
            ("not authenticated", |it| it["authenticated"] = json!(false)),
            ("authenticated by a word", |it| {
                it["authenticated"] = json!("true");
            }),
            ("of an older server without audiences", |it| {
                it["audiences"] = Value::Null;
            }),
            ("for the API server", |it| {
                it["audiences"] = json!(["https://kubernetes.default.svc"]);
            }),
            ("of a user", |it| {
                it["user"]["username"] = json!("kubernetes-admin");
            }),
            ("of a name that is none", |it| {
                it["user"]["username"] = json!("system:serviceaccount:boutique:a/b");
            }),
            ("of another namespace", |it| {
                it["user"]["username"] = json!("system:serviceaccount:bank:cart");
            }),
            ("of another pod", |it| {
                it["user"]["extra"][POD_NAME] = json!(["cart-1"]);
            }),
            ("bound to no pod", |it| it["user"]["extra"] = json!({})),
        ];
        for (what, change) in rows {
            let refused = check(&review(change), &ours);
            assert!(refused.is_err(), "{what}: {refused:?}");
        }
    }
}
