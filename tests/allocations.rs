//! What a call allocates does not creep up: counted, so it is the same wherever this runs.

#[path = "../benches/allocations.rs"]
mod allocations;
#[path = "../benches/counting.rs"]
mod counting;

const CALLS: u64 = 2000;
/// It was 15 in each run; one is for a library's next version. The target is further away.
const BEYOND_HYPER_MAX: f64 = 16.0;

#[test]
fn a_grpc_call_allocates_little_more_in_the_proxy_than_in_hyper_alone() {
    let counted = allocations::of_a_grpc_call(CALLS);
    println!("{:.2} of hyper, {:.2} of Weir", counted.hyper, counted.weir);
    let beyond = counted.beyond_hyper();
    assert!(
        counted.hyper > 10.0,
        "hyper's own are counted: {}",
        counted.hyper
    );
    assert!(
        beyond <= BEYOND_HYPER_MAX.min(allocations::BEYOND_HYPER_MAX),
        "{beyond:.2}"
    );
}
