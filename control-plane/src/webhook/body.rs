//! The body of a review, as far as there is room for it: whoever reaches the webhook's port may send one.

use std::net::IpAddr;

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use crate::shares::{Share, Shares};

/// An object may have 1.5 MiB in etcd, an update comes with the one before, and a pod is longer here than there.
pub(super) const BYTES_MAX: usize = 4 * 1024 * 1024;
const ALL_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Of one address, which the API server has for itself.
const OF_ONE_BYTES_MAX: usize = 12 * 1024 * 1024;

/// What all bodies together may take.
#[derive(Clone)]
pub(super) struct Room(Shares);

/// A body that came whole.
pub(super) struct Read {
    pub(super) bytes: Vec<u8>,
    _share: Share,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum NoBody {
    #[error("a review may have {BYTES_MAX} bytes")]
    TooLarge,
    #[error("too many reviews are being sent: try again in a moment")]
    NoRoom,
    #[error("the body broke off: {0}")]
    Broken(#[from] hyper::Error),
}

impl Default for Room {
    fn default() -> Self {
        Self(Shares::new(ALL_BYTES_MAX, OF_ONE_BYTES_MAX))
    }
}

impl Room {
    pub(super) async fn read(&self, mut body: Incoming, peer: IpAddr) -> Result<Read, NoBody> {
        // Said beforehand, nothing of it is read.
        if body.size_hint().lower() > BYTES_MAX as u64 {
            return Err(NoBody::TooLarge);
        }
        let mut share = self.0.take(peer, 0).ok_or(NoBody::NoRoom)?;
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            let wanted = bytes.len() + data.len();
            if wanted > BYTES_MAX {
                return Err(NoBody::TooLarge);
            }
            // What is held is the buffer and not only what is in it.
            let grown = wanted.next_power_of_two();
            if bytes.capacity() < wanted {
                if !share.grow(grown - bytes.capacity()) {
                    return Err(NoBody::NoRoom);
                }
                bytes.reserve_exact(grown - bytes.len());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Read {
            bytes,
            _share: share,
        })
    }
}
