//! Who has to be told when a resource changes.

use weir_config::index::Target;
use weir_config::{Kind, ResourceRef};

use super::*;

#[test]
fn a_change_says_what_it_touched() {
    let mut index = index(&[SHOP]);
    let touched = index.apply(resources(&on_cart("p", "outbound: {deadline: 1s}")).remove(0));
    assert!(
        touched.services.contains(&name("cart")) && !touched.everything,
        "{touched:?}"
    );

    let of_namespace = policy(
        "all",
        "{targetRefs: [{kind: Namespace, name: boutique}], outbound: {}}",
    );
    let touched = index.apply(resources(&of_namespace).remove(0));
    assert!(touched.namespaces.contains("boutique"));

    // A policy that moves to another target touches both.
    let moved = policy(
        "p",
        "{targetRefs: [{kind: Service, name: mail}], outbound: {}}",
    );
    let touched = index.apply(resources(&moved).remove(0));
    assert!(
        touched.services.contains(&name("cart")) && touched.services.contains(&name("mail")),
        "{touched:?}"
    );

    let gone = ResourceRef {
        kind: Kind::ResiliencePolicy,
        name: name("p"),
    };
    assert!(index.delete(&gone).services.contains(&name("mail")));
    assert!(index.delete(&gone).is_empty(), "twice is nothing");
    assert!(index.policy_on(&Target::Service(name("mail"))).is_none());
}

#[test]
fn a_reset_touches_only_what_differs() {
    let mut index = index(&[SHOP]);
    assert!(
        index.reset(&Kind::ALL, resources(SHOP)).is_empty(),
        "the same again"
    );

    let fewer: Vec<Resource> = resources(SHOP)
        .into_iter()
        .filter(|it| it.metadata().name != "cart-1")
        .collect();
    let touched = index.reset(&Kind::ALL, fewer);
    assert_eq!(touched.pods.iter().collect::<Vec<_>>(), [&name("cart-1")]);
    assert_eq!(
        compile::endpoints(&index, &cart()).len(),
        1,
        "the slice still has its address, which may be anybody's"
    );

    let touched = index.reset(&[Kind::Service], []);
    assert_eq!(touched.addresses.len(), 2);
    assert!(matches!(
        index.destination(address("10.96.0.10:7000")),
        Destination::Outside
    ));
    assert!(index.pod(&name("cart-0")).is_some(), "other kinds stay");
}

#[test]
fn whatever_was_applied_and_deleted_leaves_nothing_behind() {
    let mut index = index(&[SHOP, &on_cart("p", "outbound: {}")]);
    let all: Vec<ResourceRef> = index.references().collect();
    for reference in &all {
        assert!(!index.delete(reference).is_empty(), "{reference}");
    }
    assert_eq!(format!("{index:?}"), format!("{:?}", Index::default()));
}

#[test]
fn a_pod_whose_zone_becomes_known_is_told_and_the_others_are_not() {
    let mut index = index(&[SHOP]);
    let moved = SHOP.replace(
        "kind: Pod, name: cart-1}",
        "kind: Pod, name: cart-1}, zone: b",
    );
    let slice = resources(&moved).into_iter().find(|resource| {
        resource.reference().kind == Kind::EndpointSlice
            && resource.reference().name == name("cart-x1")
    });
    let touched = index.apply(slice.expect("the cart's slice"));
    assert_eq!(touched.pods, [name("cart-1")].into());
}

/// Slices that people or other controllers write may name no pod. Their identity is that of whoever has the address, and
/// stayed what it was when the slice came.
#[test]
fn a_pod_that_comes_or_goes_touches_the_services_that_know_it_by_its_address_alone() {
    let mut index = index(&[
        "{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: boutique}, spec: {ports: [{port: 7000}]}}",
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: cart, namespace: boutique}, \
         endpoints: [{addresses: [10.1.0.7]}, {addresses: [10.1.0.9]}], ports: [{port: 7070}]}",
    ]);
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: any, namespace: elsewhere}, \
               spec: {initContainers: [{name: weir-proxy, env: [{name: WEIR_POD_NAME}]}]}, status: {podIP: 10.1.0.7}}";
    let pod = resources(pod).remove(0);
    let reference = pod.reference();
    let is_known = |index: &Index| compile::endpoints(index, &cart())[0].identity.is_some();
    assert!(!is_known(&index));
    let came = index.apply(pod.clone());
    assert!(is_known(&index));
    let gone = index.delete(&reference);
    assert!(!is_known(&index));
    for touched in [came, gone] {
        assert!(touched.services.contains(&name("cart")), "{touched:?}");
    }
    let slice = ResourceRef {
        kind: Kind::EndpointSlice,
        name: name("cart"),
    };
    index.delete(&slice);
    let nobodys = index.apply(pod);
    assert!(nobodys.services.is_empty(), "{nobodys:?}");
}

/// A pod that names no port is called on the number that its slices know for the name. Its sidecar went on to take calls for
/// the number that was: limits and rights were those of a port that nobody calls.
#[test]
fn workloads_whose_port_only_slices_know_by_name_are_told_when_it_is_another() {
    let unnamed = SHOP.replace("{name: api, containerPort: 7070}", "");
    let mut index = index(&[&unnamed]);
    let of_slice = |text: &str| {
        let mut slices = resources(text).into_iter();
        let slice = slices.find(|it| it.reference().name == name("cart-x1"));
        slice.expect("the cart's slice")
    };
    let number = |index: &Index| {
        let workload = compile::workload(index, &name("cart-0")).expect("a pod");
        let mut ports = workload.ports.iter();
        let of_grpc = |it: &&weir_config::snapshot::Inbound| {
            it.service.as_ref().is_some_and(|key| key.port == 7000)
        };
        ports.find(of_grpc).map(|it| it.port)
    };
    assert_eq!(number(&index), Some(7070));
    let moved = of_slice(&unnamed.replace("port: 7070}", "port: 7071}"));
    let reference = moved.reference();
    let touched = index.apply(moved);
    assert_eq!(number(&index), Some(7071));
    assert!(touched.addresses.contains(&name("cart")), "{touched:?}");
    let touched = index.delete(&reference);
    assert_eq!(number(&index), None);
    assert!(touched.addresses.contains(&name("cart")), "{touched:?}");

    let fewer =
        of_slice(&unnamed.replace("{addresses: [10.1.0.9], conditions: {ready: false}}", ""));
    index.apply(of_slice(&unnamed));
    let touched = index.apply(fewer);
    assert!(
        touched.addresses.is_empty(),
        "no port of it is another: {touched:?}"
    );
}

#[test]
fn a_pod_whose_zone_is_not_told_any_more_is_told_so() {
    for (now, whose) in [("cart-x1", "nobody"), ("gone", "cart")] {
        let mut index = index(&[SHOP]);
        let zone = |index: &Index| {
            compile::workload(index, &name("cart-0"))
                .expect("a pod")
                .zone
        };
        assert_eq!(zone(&index).as_deref(), Some("a"));
        let slices =
            resources(&SHOP.replace("service-name: cart", &format!("service-name: {whose}")));
        let slice = slices
            .into_iter()
            .find(|it| it.reference().name == name("cart-x1"));
        let slice = slice.expect("the cart's slice");
        let touched = match now {
            "gone" => index.delete(&slice.reference()),
            _ => index.apply(slice),
        };
        assert_eq!(zone(&index), None);
        assert!(
            touched.pods.contains(&name("cart-0")),
            "{now} {whose}: {touched:?}"
        );
    }
}
