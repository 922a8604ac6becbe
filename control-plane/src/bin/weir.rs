//! `weir`: the command line. Everything is in the library, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir_control_plane::cli::main()
}
