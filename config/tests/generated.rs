//! The committed protocol code is what the protocol files say.

use std::path::Path;

#[test]
fn the_generated_code_matches_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = protox::compile(
        ["weir/mesh/v1/mesh.proto", "weir/mesh/v1/operator.proto"],
        [root.join("proto")],
    )
    .expect("the proto files compile");
    let out = std::env::temp_dir().join(format!("weir-config-pb-{}", std::process::id()));
    std::fs::create_dir_all(&out).expect("a temporary folder");
    tonic_prost_build::configure()
        // Its `connect` would clash with the call `Connect`, and sidecars bring their own transport anyway.
        .build_transport(false)
        .bytes(".")
        .out_dir(&out)
        .compile_fds(files)
        .expect("code is generated");
    let fresh = std::fs::read_to_string(out.join("weir.mesh.v1.rs")).expect("the generated file");
    std::fs::remove_dir_all(&out).expect("the temporary folder goes");

    let committed = root.join("src/pb/weir.mesh.v1.rs");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&committed, &fresh).expect("the committed file is written");
    }
    let committed = std::fs::read_to_string(&committed).unwrap_or_default();
    assert!(
        committed == fresh,
        "config/src/pb/weir.mesh.v1.rs is stale: run UPDATE=1 cargo test -p weir-config --test generated"
    );
}
