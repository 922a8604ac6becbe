//! The two programs as an operator meets them: started, asked, killed, started again.

mod files;
mod program;
mod questions;
mod validate;
#[path = "../world/mod.rs"]
mod world;

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::process::Command;

use world::PATIENCE;

async fn weir(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.env(
        "WEIR_CONTROL_PLANE",
        format!("unix:{}", folder.join("operator.sock").display()),
    );
    command.args(arguments).stdin(Stdio::null());
    tokio::time::timeout(PATIENCE, command.output())
        .await
        .expect("it ends")
        .expect("it runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}
