//! Keeping a request body while it passes, so that another try can send it again.
//!
//! Bounded twice: 64 KiB a request and 16 MiB for the whole proxy (resilience.md section 8). A body that outgrows
//! either keeps streaming, it only can no longer be sent a second time.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use crate::body::BodyError;

const REQUEST_BYTES_MAX: usize = 64 * 1024;
const PROXY_BYTES_MAX: usize = 16 * 1024 * 1024;

static PROXY_BYTES: AtomicUsize = AtomicUsize::new(0);

/// A request body that can be read several times while it is small.
#[derive(Clone)]
pub struct Replay(Arc<Mutex<Shared>>);

struct Shared {
    source: Incoming,
    kept: VecDeque<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// More passed than may be kept: what was kept is gone.
    outgrown: bool,
}

impl Replay {
    pub fn new(source: Incoming) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            source,
            kept: VecDeque::new(),
            kept_bytes: 0,
            trailers: None,
            ended: false,
            outgrown: false,
        })))
    }

    /// The body from its start. Only the newest attempt may be read.
    pub fn attempt(&self) -> Attempt {
        Attempt {
            shared: self.0.clone(),
            position: 0,
            trailers_sent: false,
        }
    }

    /// Whether a further attempt would see the whole body.
    pub fn is_possible(&self) -> bool {
        !self.0.lock().expect("no panic while locked").outgrown
    }

    /// No further try will come: keep no more. What the current attempt has still to read stays.
    pub fn commit(&self) {
        self.0.lock().expect("no panic while locked").outgrown = true;
    }
}

impl Shared {
    fn keep(&mut self, data: &Bytes) {
        if self.outgrown {
            return;
        }
        let fits_request = self.kept_bytes + data.len() <= REQUEST_BYTES_MAX;
        if !fits_request
            || PROXY_BYTES.fetch_add(data.len(), Ordering::Relaxed) + data.len() > PROXY_BYTES_MAX
        {
            if fits_request {
                PROXY_BYTES.fetch_sub(data.len(), Ordering::Relaxed);
            }
            self.outgrow();
            return;
        }
        self.kept_bytes += data.len();
        self.kept.push_back(data.clone());
    }

    fn outgrow(&mut self) {
        self.outgrown = true;
        PROXY_BYTES.fetch_sub(self.kept_bytes, Ordering::Relaxed);
        self.kept_bytes = 0;
        self.kept = VecDeque::new();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        PROXY_BYTES.fetch_sub(self.kept_bytes, Ordering::Relaxed);
    }
}

/// One try's reading of the body: first what was kept, then what still comes.
pub struct Attempt {
    shared: Arc<Mutex<Shared>>,
    /// Kept frames already given out by this attempt.
    position: usize,
    trailers_sent: bool,
}

impl Attempt {
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = self.shared.lock().expect("no panic while locked");
        if let Some(data) = shared.kept.get(self.position) {
            self.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if !self.trailers_sent
            && let Some(trailers) = &shared.trailers
        {
            self.trailers_sent = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        if shared.ended {
            return Poll::Ready(None);
        }
        match std::task::ready!(http_body::Body::poll_frame(
            Pin::new(&mut shared.source),
            cx
        )) {
            None => {
                shared.ended = true;
                Poll::Ready(None)
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    shared.keep(data);
                    if !shared.outgrown {
                        self.position += 1;
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    shared.trailers = Some(trailers.clone());
                    self.trailers_sent = true;
                }
                if http_body::Body::is_end_stream(&shared.source) {
                    shared.ended = true;
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    pub fn is_end_stream(&self) -> bool {
        let shared = self.shared.lock().expect("no panic while locked");
        shared.ended
            && self.position >= shared.kept.len()
            && (self.trailers_sent || shared.trailers.is_none())
    }

    pub fn size_hint(&self) -> SizeHint {
        let shared = self.shared.lock().expect("no panic while locked");
        if self.position == 0 && shared.kept.is_empty() && !shared.outgrown {
            return http_body::Body::size_hint(&shared.source);
        }
        // Part of it has been read: what is left of the source is not what is left of the body.
        SizeHint::new()
    }
}
