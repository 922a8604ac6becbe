//! How routes of the Gateway API fare: to what they are attached, and whether those they name are there.

use weir_config::Kind;
use weir_config::index::{Index, Parent, Unresolved};
use weir_config::resource::{GatewayRoute, ObjectName, ParentRef};

use super::Mesh;

/// Of one route and one of its parents in the mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteParent {
    pub parent: ParentRef,
    pub fares: Parent,
    /// The first backend of the route that leads nowhere from there, by name, and why.
    pub unresolved: Option<(Unresolved, String)>,
}

impl Mesh {
    /// One answer a parent, in the order of the route; `None`: no such route is in force.
    pub fn route_parents(&self, kind: Kind, route: &ObjectName) -> Option<Vec<RouteParent>> {
        let state = self.state();
        let index = &state.index;
        match kind {
            Kind::HttpRoute => Some(parents(index, &**index.http_route(route)?)),
            Kind::GrpcRoute => Some(parents(index, &**index.grpc_route(route)?)),
            _ => None,
        }
    }
}

fn parents<R: GatewayRoute>(index: &Index, route: &R) -> Vec<RouteParent> {
    let namespace = route.metadata().namespace();
    let unresolved = |parent: &ObjectName| {
        let mut backends = route.backend_refs().into_iter();
        backends.find_map(|backend| {
            let why = index.resolve(route, Some(parent), backend).err()?;
            let port = backend
                .port
                .map_or(String::new(), |port| format!(" with a port {port}"));
            Some((why, format!("{}{port}", backend.title(namespace))))
        })
    };
    let parents = index.parents(route).into_iter();
    parents
        .map(|(parent, fares)| RouteParent {
            parent: parent.clone(),
            fares,
            unresolved: unresolved(&parent.service(namespace)),
        })
        .collect()
}
