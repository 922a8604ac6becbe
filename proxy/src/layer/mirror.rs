//! Copies of calls for another service, whose answers nobody gets.
//!
//! A copy must not cost its call anything: it is made beside it in a task of its own, of a body that was kept while it
//! passed (64 KiB at most, [`crate::replay`]), goes out once, and is left out where too many are under way. It counts as a
//! retry for whoever gets it, so nobody below makes more of it.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::time::Instant;
use weir_config::snapshot;

use crate::backend::Directory;
use crate::body::{Body, Twin};
use crate::head::Kept;
use crate::policy::deadline::Deadline;
use crate::policy::priority::Tier;
use crate::recorder::Names;
use crate::request::{Context, Request};
use crate::telemetry::MirrorMetrics;

/// However patient the policies of whoever gets copies are.
const TIME_MAX: Duration = Duration::from_secs(30);
/// Of an answer, to be read so that its connection can be used again.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

#[derive(Clone, Debug)]
pub struct Mirror {
    to: Arc<str>,
    numerator: u64,
    denominator: u64,
    metrics: MirrorMetrics,
}

/// What a copy is made from.
pub struct Copy {
    mirror: Mirror,
    head: Kept,
    body: Twin,
    context: Context,
}

impl Mirror {
    pub fn new(service: &str, rule: &str, said: &snapshot::Mirror) -> Self {
        let to: Arc<str> = said.to.to_string().into();
        Self {
            metrics: MirrorMetrics::new(service, rule, &to),
            to,
            numerator: said.numerator.into(),
            denominator: said.denominator.max(1).into(),
        }
    }

    /// `None`: this call is not among those that are copied, or cannot be.
    pub fn copy(&self, request: &mut Request, random: u64) -> Option<Copy> {
        if random % self.denominator >= self.numerator || request.context.upgrade {
            return None;
        }
        let Some(body) = Twin::of(&mut request.body) else {
            self.metrics.left_out.inc();
            return None;
        };
        let mut context = request.context.clone();
        context.stands_in = true;
        context.is_copy = true;
        context.is_retry = true;
        context.priority.tier = Tier::Sheddable;
        context.interim = None;
        context.heir = None;
        context.terms = None;
        // Nobody tells of it in the end, so nothing is to be noted of it.
        context.names = Names::default();
        Some(Copy {
            mirror: self.clone(),
            head: Kept::of(&request.head),
            body,
            context,
        })
    }
}

impl Copy {
    /// There is no body to wait for.
    pub const fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// On its way, unless its body has not passed whole.
    pub fn send(self, backends: &Directory) {
        let Mirror { to, metrics, .. } = self.mirror;
        let Some(body) = self.body.again() else {
            self.body.commit();
            metrics.left_out.inc();
            return;
        };
        // The body stays: it may have to go to others.
        let Some(backend) = backends.load().get(&*to).cloned() else {
            metrics.left_out.inc();
            return;
        };
        let mut request = Box::new(Request {
            head: self.head.head(),
            body,
            context: self.context,
        });
        begin(&mut request.context, Instant::now());
        tokio::spawn(async move {
            let ended = tokio::time::timeout(TIME_MAX, async {
                match backend.mirrored(request).await {
                    Some(Ok(response)) => {
                        swallow(response.into_body()).await;
                        &metrics.answered
                    }
                    Some(Err(_)) => &metrics.failed,
                    None => &metrics.left_out,
                }
            });
            ended.await.unwrap_or(&metrics.failed).inc();
        });
    }
}

/// It has as long as its call had. What that has used up of its time says nothing of whoever gets the copy.
fn begin(context: &mut Context, now: Instant) {
    let span = context.deadline.remaining(context.received);
    let span = span.map_or(TIME_MAX, |span| span.min(TIME_MAX));
    context.deadline = Deadline::after(span, now);
    context.received = now;
    context.begun = now;
}

async fn swallow(mut body: Body) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
        if bytes > ANSWER_BYTES_MAX {
            return;
        }
    }
}
