//! Keeps good answers to GETs on the way to the app, and gives them again when a call fails.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, header};
use tokio::time::Instant;

use crate::body::{Body, Copy, Room};
use crate::head::{self, DEGRADED};
use crate::policy::stale::{self, BODY_BYTES_MAX, Bounds, Stale, Terms, Url};
use crate::request::Request;
use crate::telemetry;

/// Of the whole proxy.
const BOUNDS: Bounds = Bounds {
    answers: 4096,
    bytes: 16 * 1024 * 1024,
};
/// Answers that are passing and may be kept, together.
const COPIES_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What is kept of all services. Locked for a look-up, or to take in an answer that has passed; only by calls of routes
/// that ask for it.
pub struct Shared {
    stale: Mutex<Stale>,
    room: Arc<Room>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            stale: Mutex::new(Stale::new(BOUNDS)),
            room: Arc::new(Room::new(COPIES_BYTES_MAX)),
        }
    }
}

impl Shared {
    fn stale(&self) -> MutexGuard<'_, Stale> {
        self.stale.lock().expect("no panic while locked")
    }

    fn change(&self, change: impl FnOnce(&mut Stale)) {
        let mut stale = self.stale();
        change(&mut stale);
        let (answers, bytes) = stale.size();
        drop(stale);
        telemetry::stale_kept(answers, bytes);
    }
}

/// Where a route's answers are kept, and how old they may be.
#[derive(Clone)]
pub struct Shelf {
    pub shared: Arc<Shared>,
    pub service: Arc<str>,
    pub age_max: Duration,
}

/// What was asked, for when it is answered.
pub struct Question {
    shelf: Shelf,
    url: Url,
    head: Parts,
    asked: Instant,
}

impl Shelf {
    /// `None`: the answer can neither be kept nor given again, whatever it is.
    pub fn question(&self, request: &Request) -> Option<Question> {
        static READING: LazyLock<[Method; 4]> =
            LazyLock::new(|| [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE]);
        let (head, context) = (&request.head, &request.context);
        let reads = READING.contains(&head.method) && head.method != Method::GET;
        if context.grpc || context.upgrade || reads {
            return None;
        }
        Some(Question {
            shelf: self.clone(),
            url: Url::of(&self.service, head)?,
            head: head.clone(),
            asked: context.received,
        })
    }
}

impl Question {
    fn is_get(&self) -> bool {
        self.head.method == Method::GET
    }

    /// The answer is good: it passes, and is kept if it may be.
    pub fn answered(self, response: Response<Body>) -> Response<Body> {
        let shared = self.shelf.shared.clone();
        let now = Instant::now();
        if !self.is_get() {
            // Something was written there.
            shared.change(|stale| stale.forget(&self.url, now));
            return response;
        }
        let (head, mut body) = response.into_parts();
        if head.headers.contains_key(&DEGRADED) {
            return Response::from_parts(head, body);
        }
        let terms = Terms::of(&self.head, head.status, &head.headers);
        if terms.is_none() && Terms::outdate(head.status, &head.headers) {
            shared.change(|stale| stale.outdate(&self.url, &self.head.headers, now));
        } else if let Some(terms) = terms
            && shared.stale().wants(&self.url, &self.head.headers, now)
        {
            let room = shared.room.clone();
            let headers = of_the_app(&head.headers);
            body.copy(
                &head,
                Copy::new(BODY_BYTES_MAX, room, move |body| {
                    shared.change(|stale| {
                        if !stale.has_changed_since(&self.url, self.asked) {
                            // As old as its head, which is when it was true.
                            stale.keep(self.url, terms, headers, body, now);
                        }
                    });
                }),
            );
        }
        Response::from_parts(head, body)
    }

    /// What was answered before, if anything is left of it.
    pub fn find(&self) -> Option<stale::Answer> {
        if !self.is_get() {
            return None;
        }
        let age_max = self.shelf.age_max;
        let headers = &self.head.headers;
        (self.shelf.shared.stale()).find(&self.url, headers, age_max, Instant::now())
    }
}

/// What belongs to the connection and what sidecars say to each other is not the app's answer.
fn of_the_app(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    head::strip_connection_headers(&mut headers, false);
    head::strip_sidecar_headers(&mut headers);
    headers.remove(header::AGE);
    headers
}

/// RFC 5861 section 4: which of a server's own answers are errors.
pub fn is_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502..=504)
}
