//! The committed code in src/pb and tests/pb is what the protos say.

use std::path::{Path, PathBuf};

#[test]
fn committed_code_is_what_the_protos_generate() {
    let log = [
        "boutique/events/v1/orderlog.proto",
        "boutique/v1/money.proto",
    ];
    let files = ["boutique.v1.rs", "boutique.events.v1.rs"];
    check(&log, "src/pb", &files);
    let shop = [
        "boutique/events/v1/orderlog.proto",
        "boutique/events/v1/orderview.proto",
        "boutique/v1/payment.proto",
        "boutique/v1/shipping.proto",
    ];
    check(&shop, "tests/pb", &files);
}

/// With `UPDATE` in the environment, writes them first.
fn check(protos: &[&str], folder: &str, files: &[&str]) {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("a temporary directory can be made");
    generate(&crate_dir.join("../proto"), protos, out.path());
    for file in files {
        let fresh = read(&out.path().join(file));
        let committed: PathBuf = crate_dir.join(folder).join(file);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&committed, &fresh).expect("the folder is writable");
        }
        assert!(
            read(&committed) == fresh,
            "{folder}/{file} is not what the protos generate; \
             run: UPDATE=1 cargo test -p boutique-orderlog --test generated"
        );
    }
}

fn generate(folder: &Path, protos: &[&str], out: &Path) {
    let descriptors = protox::compile(protos, [folder]).expect("the protos compile");
    tonic_prost_build::configure()
        .out_dir(out)
        .compile_fds(descriptors)
        .expect("code is generated from a valid descriptor set");
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
