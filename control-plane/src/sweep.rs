//! Forgets what nobody tells the control plane to forget.

use std::time::Duration;

use crate::breakers::Breakers;
use crate::journal::now_ms;
use crate::mesh::Mesh;
use crate::proxies::Proxies;

const EVERY: Duration = Duration::from_secs(10);
/// A sidecar drains for 30 seconds unless it is told otherwise, and a container that ends starts again in as many. Of one
/// that drains for longer the pod itself is terminating, as a rule.
const DRAINED_AFTER: Duration = Duration::from_secs(120);

/// Runs for as long as the process does.
pub(crate) async fn run(mesh: Mesh, proxies: Proxies, breakers: Breakers) {
    loop {
        tokio::time::sleep(EVERY).await;
        pass(&mesh, &proxies, &breakers, now_ms());
    }
}

fn pass(mesh: &Mesh, proxies: &Proxies, breakers: &Breakers, now_ms: u64) {
    proxies.forget(|pod| mesh.pod(pod).is_none());
    breakers.forget(|pod| mesh.pod(pod).is_none());
    let drained_after_ms = u64::try_from(DRAINED_AFTER.as_millis()).unwrap_or(u64::MAX);
    // Its container may have started again since then, and found another control plane.
    for pod in proxies.left_draining(now_ms.saturating_sub(drained_after_ms)) {
        if mesh.pod(&pod).is_some_and(|pod| !pod.is_terminating()) {
            mesh.set_draining(&pod, false);
            proxies.update(&pod, |proxy| proxy.draining = false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use weir_config::parse;
    use weir_config::resource::ObjectName;

    use super::*;
    use crate::mesh::Change;
    use crate::spiffe::SpiffeId;
    use crate::version::Versions;

    const WAY_TO_IT: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n---\n\
                             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a, namespace: shop, labels: {kubernetes.io/service-name: a}}\naddressType: IPv4\nports: [{port: 8080}]\n\
                             endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: a-0, namespace: shop}}]\n";
    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a-0, namespace: shop}\nspec: {serviceAccountName: a}\nstatus: {podIP: 10.0.0.1}\n";

    fn apply(mesh: &Mesh, text: &str) {
        let resources = parse("test", text).expect("in order").into_iter();
        mesh.change(resources.map(|located| Change::Apply(Box::new(located.value))));
    }

    fn terminating() -> String {
        POD.replace("a-0,", "a-0, deletionTimestamp: \"2026-11-26T03:00:00Z\",")
    }

    /// Whether whoever calls it is told that its only endpoint drains.
    fn drains(mesh: &Mesh) -> bool {
        let caller = mesh.join(&ObjectName::new("shop", "caller"));
        caller.subscribe("10.96.0.1:80".parse().expect("an address"));
        let news = caller.collect(&caller.mailbox().take());
        let endpoints = news.services.iter().flat_map(|it| &it.endpoints);
        let found: Vec<bool> = endpoints.map(|endpoint| endpoint.draining).collect();
        let [drains] = found.as_slice() else {
            panic!("one endpoint: {found:?}")
        };
        *drains
    }

    /// The sidecar of a-0 said here that it drains, and left at 1000 ms.
    fn left_draining() -> (Mesh, Proxies) {
        let mesh = Mesh::new("weir.local", Versions::in_memory());
        apply(&mesh, &format!("{WAY_TO_IT}---\n{POD}"));
        let (proxies, pod) = (Proxies::default(), ObjectName::new("shop", "a-0"));
        let identity = SpiffeId::new("weir.local", "shop", "a").expect("an identity");
        let (connection, _) = proxies.connected(&pod, &identity, "1", SystemTime::now(), 0);
        mesh.set_draining(&pod, true);
        proxies.update(&pod, |proxy| proxy.draining = true);
        proxies.disconnected(&pod, connection, 1000);
        (mesh, proxies)
    }

    /// Its container had started again, and was connected to another control plane: here it drained for good.
    #[test]
    fn a_sidecar_that_drained_and_left_drains_no_more_after_a_while() {
        let (mesh, proxies) = left_draining();
        let over = 1000 + u64::try_from(DRAINED_AFTER.as_millis()).expect("a time");
        pass(&mesh, &proxies, &Breakers::default(), over - 1);
        assert!(drains(&mesh), "it may be about to end");
        pass(&mesh, &proxies, &Breakers::default(), over);
        assert!(!drains(&mesh));
        assert!(!proxies.rows()[0].draining);
    }

    #[test]
    fn one_whose_pod_is_terminating_drains_until_the_pod_is_gone() {
        let (mesh, proxies) = left_draining();
        apply(&mesh, &terminating());
        pass(&mesh, &proxies, &Breakers::default(), u64::MAX);
        assert!(drains(&mesh));
    }

    #[test]
    fn one_that_is_here_drains_for_as_long_as_it_says() {
        let (mesh, proxies) = left_draining();
        let pod = ObjectName::new("shop", "a-0");
        let identity = SpiffeId::new("weir.local", "shop", "a").expect("an identity");
        let _held = proxies.connected(&pod, &identity, "1", SystemTime::now(), 2000);
        proxies.update(&pod, |proxy| proxy.draining = true);
        pass(&mesh, &proxies, &Breakers::default(), u64::MAX);
        assert!(drains(&mesh));
    }

    /// A stream may outlive its pod, and a pod of a StatefulSet has the name of the one before.
    #[test]
    fn what_a_pod_said_that_is_gone_is_not_held_against_the_next_of_its_name() {
        let mesh = Mesh::new("weir.local", Versions::in_memory());
        mesh.set_draining(&ObjectName::new("shop", "a-0"), true);
        apply(&mesh, &format!("{WAY_TO_IT}---\n{POD}"));
        assert!(!drains(&mesh));
    }
}
