//! What proves who a pod is: a bootstrap token (one file a pod, `<folder>/<namespace>/<pod>`, written by whoever
//! starts the pods), or on Kubernetes the token of its service account ([`TokenReviews`]).

mod review;

use std::net::IpAddr;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use weir_config::resource::ObjectName;

pub use self::review::{TokenReviews, Turn};

use crate::spiffe::is_name;

/// 32 random bytes in hex.
const TOKEN_CHARS_MIN: usize = 64;
const TOKEN_CHARS_MAX: usize = 4096;

#[derive(Clone)]
pub enum Tokens {
    Files(FileTokens),
    Reviews(TokenReviews),
}

#[derive(Clone, Debug)]
pub struct FileTokens {
    folder: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the request names no pod")]
    NoPod,
    #[error("there is no token for this pod")]
    Unknown,
    #[error("the token is not this pod's")]
    Wrong,
    #[error("the token on file is shorter than {TOKEN_CHARS_MIN} characters: it could be guessed")]
    Weak,
    #[error("the API server does not accept the token: {0}")]
    Rejected(String),
    #[error("the token is for {0:?}; this control plane accepts tokens for itself only")]
    Audience(Vec<String>),
    #[error("the token is of {0}, which is no pod's service account")]
    NoServiceAccount(String),
    #[error("the token is bound to another pod")]
    OtherPod,
    /// Nothing is known about the token: whoever asks may ask again.
    #[error("the token cannot be checked now: {0}")]
    Unavailable(String),
}

impl Tokens {
    /// Waits until a token that `peer` presents may be checked; `None`: a check costs nobody else anything.
    pub async fn turn(&self, peer: IpAddr) -> Result<Option<Turn>, TokenError> {
        match self {
            Self::Files(_) => Ok(None),
            Self::Reviews(reviews) => reviews.turn(peer).await.map(Some),
        }
    }

    /// Whether `presented` is a token of `pod`; if it says of which service account, that one.
    pub async fn check(
        &self,
        pod: &ObjectName,
        presented: &str,
    ) -> Result<Option<String>, TokenError> {
        match self {
            Self::Files(files) => files.check(pod, presented).await.map(|()| None),
            Self::Reviews(reviews) => reviews.check(pod, presented).await.map(Some),
        }
    }
}

impl FileTokens {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Whether `presented` is the token of `pod`.
    pub async fn check(&self, pod: &ObjectName, presented: &str) -> Result<(), TokenError> {
        // Names become a path: nothing that means something in one may pass.
        if !is_name(&pod.namespace) || !is_name(&pod.name) {
            return Err(TokenError::NoPod);
        }
        let path = self.folder.join(&pod.namespace).join(&pod.name);
        let expected = tokio::fs::read_to_string(&path)
            .await
            .map_err(|_| TokenError::Unknown)?;
        let (expected, presented) = (expected.trim(), presented.trim());
        if expected.len() < TOKEN_CHARS_MIN {
            return Err(TokenError::Weak);
        }
        if presented.len() <= TOKEN_CHARS_MAX && equal(expected, presented) {
            Ok(())
        } else {
            Err(TokenError::Wrong)
        }
    }
}

/// In constant time: of two digests, every byte is looked at, and a digest says nothing of how much of a guess was right.
fn equal(a: &str, b: &str) -> bool {
    let (a, b) = (Sha256::digest(a), Sha256::digest(b));
    a.iter()
        .zip(b.iter())
        .fold(0, |difference, (a, b)| difference | (a ^ b))
        == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_good_for_its_own_pod_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        };
        let (a, b) = ("a1".repeat(32), "b2".repeat(32));
        write("boutique/cart-0", &format!("{a}\n"));
        write("boutique/cart-1", &b);
        write("boutique/weak-0", "1234");
        write("secret", &a);
        let tokens = FileTokens::new(folder.path().join("."));
        let check = async |namespace: &str, pod: &str, token: &str| {
            tokens.check(&ObjectName::new(namespace, pod), token).await
        };
        assert_eq!(check("boutique", "cart-0", &a).await, Ok(()));
        assert_eq!(
            check("boutique", "cart-1", &a).await,
            Err(TokenError::Wrong)
        );
        assert_eq!(
            check("boutique", "cart-0", "").await,
            Err(TokenError::Wrong)
        );
        assert_eq!(
            check("boutique", "cart-0", &a[1..]).await,
            Err(TokenError::Wrong)
        );
        assert_eq!(
            check("boutique", "cart-9", &a).await,
            Err(TokenError::Unknown)
        );
        assert_eq!(
            check("boutique", "weak-0", "1234").await,
            Err(TokenError::Weak)
        );
        for (namespace, pod) in [
            ("boutique", "../secret"),
            ("..", "secret"),
            ("", "secret"),
            ("boutique", "cart-0/"),
            ("boutique", ""),
        ] {
            assert_eq!(
                check(namespace, pod, &a).await,
                Err(TokenError::NoPod),
                "{namespace}/{pod}"
            );
        }
    }
}
