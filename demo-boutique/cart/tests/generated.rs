//! The committed code in src/pb is what the protos say.

use std::path::{Path, PathBuf};

const PROTOS: [&str; 1] = ["boutique/v1/cart.proto"];
const GENERATED: &str = "boutique.v1.rs";

#[test]
fn committed_code_is_what_the_protos_generate() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("a temporary directory can be made");
    generate(&crate_dir.join("../proto"), out.path());

    let fresh = read(&out.path().join(GENERATED));
    let committed: PathBuf = crate_dir.join("src/pb").join(GENERATED);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&committed, &fresh).expect("src/pb is writable");
    }
    assert!(
        read(&committed) == fresh,
        "src/pb/{GENERATED} is not what the protos generate; \
         run: UPDATE=1 cargo test -p boutique-cart --test generated"
    );
}

fn generate(protos: &Path, out: &Path) {
    let descriptors = protox::compile(PROTOS, [protos]).expect("the protos compile");
    tonic_prost_build::configure()
        .out_dir(out)
        .compile_fds(descriptors)
        .expect("code is generated from a valid descriptor set");
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
