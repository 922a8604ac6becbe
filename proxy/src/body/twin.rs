//! A request body that is sent twice at the same time.

use super::{Body, Source};
use crate::replay::Replay;

/// What a request body can be sent from a second time, while it is being sent.
pub struct Twin {
    /// `None`: there is nothing to send.
    replay: Option<Replay>,
    /// Nobody else wants to send it again.
    own: bool,
}

impl Twin {
    /// Makes `body` keep what passes, unless it does already. `None`: it cannot.
    pub fn of(body: &mut Body) -> Option<Self> {
        let (replay, own) = match &body.source {
            Source::Empty => (None, false),
            Source::Attempt(attempt) => (Some(attempt.replay()), false),
            Source::Full(_) | Source::Slow(_) => return None,
            Source::Incoming(_) | Source::Download(_) | Source::Http1(_) => {
                let replay = Replay::new(std::mem::take(body));
                *body = Body::attempt(replay.attempt());
                (Some(replay), true)
            }
        };
        Some(Self { replay, own })
    }

    /// The body from its start; `None`: not all of it has passed, or it is too long to be kept.
    pub fn again(&self) -> Option<Body> {
        match &self.replay {
            None => Some(Body::empty()),
            Some(replay) => replay.beside().map(Body::attempt),
        }
    }

    /// The body from its start, whoever reads it now; `None`: too much of it has passed to be kept.
    pub fn anew(&self) -> Option<Body> {
        match &self.replay {
            None => Some(Body::empty()),
            Some(replay) => (replay.is_possible()).then(|| Body::attempt(replay.attempt())),
        }
    }

    /// There is nothing to send.
    pub const fn is_empty(&self) -> bool {
        self.replay.is_none()
    }

    /// It will not be sent again: keep no more.
    pub fn commit(&self) {
        if let Some(replay) = self.replay.as_ref().filter(|_| self.own) {
            replay.commit();
        }
    }
}
