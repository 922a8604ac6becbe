//! The services of the boutique in Go, TypeScript, Java and Python: their own tests, each in its language's runner.

use std::process::Command;

use weir_lab::{build, toolbox};

#[test]
fn the_services_pass_their_own_tests() {
    toolbox::provide(&[toolbox::SHOP]).expect("the shop's tools are there");
    let script = build::root().join("demo-boutique/test");
    let status = Command::new(&script).status().expect("it runs");
    assert!(status.success(), "{}: {status}", script.display());
}
