//! Another service that is asked once when a call has failed, in the stead of the one that was called.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tower::Service;

use super::Answer;
use crate::body::Twin;
use crate::head::Kept;
use crate::pipeline::Stack;
use crate::policy::deadline::Deadline;
use crate::request::{Context, Request};

#[derive(Clone)]
pub struct Alternate {
    pub service: Arc<str>,
    /// To that service: with its endpoints, identities and policies.
    pub stack: Stack,
    /// Of the route that falls back; its calls end by then, whoever answers them.
    pub deadline: Option<Duration>,
}

/// What a call in another's stead is made from.
pub struct Spare {
    head: Kept,
    body: Twin,
    context: Context,
}

impl Alternate {
    /// `None`: the call cannot be made a second time, whatever comes of the first. Otherwise its body is kept while it
    /// passes and is small.
    pub fn spare(&self, request: &mut Request) -> Option<Spare> {
        if request.context.upgrade {
            return None;
        }
        let mut context = request.context.clone();
        let by_rule = (context.terms.as_ref()).is_some_and(|terms| terms.sets_deadline());
        if let Some(limit) = self.deadline.filter(|_| !by_rule) {
            let limit = Deadline::after(limit, context.received);
            context.deadline = context.deadline.min(limit);
        }
        context.stands_in = true;
        // Of the rule that sent it to whoever failed.
        context.terms = None;
        // For the sidecars over there as well: below it there are no more tries.
        context.is_retry = true;
        Some(Spare {
            body: Twin::of(&mut request.body)?,
            head: Kept::of(&request.head),
            context,
        })
    }

    /// `None`: it is too late, or the body cannot be sent again.
    pub async fn call(&self, spare: Spare) -> Option<Answer> {
        let now = Instant::now();
        if spare.context.deadline.is_over(now) {
            return None;
        }
        let request = Box::new(Request {
            body: spare.body.anew()?,
            head: spare.head.head(),
            context: Context {
                begun: now,
                ..spare.context
            },
        });
        Some(self.stack.clone().call(request).await)
    }
}

impl Spare {
    /// The first call has gone well.
    pub fn drop_body(&self) {
        self.body.commit();
    }

    /// It was made twice before this, or may be: the caller or the policy vouches for that.
    pub const fn is_idempotent(&self) -> bool {
        self.context.idempotent
    }
}
