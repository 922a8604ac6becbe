//! The routes of a service as of one policy, and which of them a request takes.

use weir_config::snapshot;

use crate::pipeline::Stack;
use crate::request::Request;
use crate::router::Matcher;

/// The routes of a service as of one policy.
pub struct Routes {
    pub protocol: snapshot::Protocol,
    pub(super) routes: Vec<Route>,
    /// For what no route matches.
    pub(super) default: Route,
    /// Where routes of the Gateway API say whom calls go to; then those above are for calls that come here in the end.
    pub(super) dispatch: Option<Stack>,
}

impl Routes {
    pub fn dispatch(&self) -> Option<&Stack> {
        self.dispatch.as_ref()
    }

    /// Of this service itself, wherever its routes of the Gateway API would send the request.
    pub fn stack(&self, request: &mut Request) -> &Stack {
        let route = self.route(request);
        request.context.idempotent |= route.idempotent;
        &route.stack
    }

    fn route(&self, request: &Request) -> &Route {
        let (method, path, grpc) = (
            &request.head.method,
            request.head.uri.path(),
            request.context.grpc,
        );
        let matches = |route: &&Route| {
            route
                .matcher
                .as_ref()
                .is_some_and(|matcher| matcher.matches(method, path, grpc))
        };
        self.routes.iter().find(matches).unwrap_or(&self.default)
    }
}

pub(super) struct Route {
    /// `None`: matches everything.
    pub(super) matcher: Option<Matcher>,
    /// The policy vouches that this call may be repeated.
    pub(super) idempotent: bool,
    pub(super) stack: Stack,
}
