//! The shop's page in a real Chromium: the shop in the mesh, visitors who buy, services that freeze; then a shop that has
//! neither a mesh nor most of its services. What the browser does is in `demo-boutique/browser`; pictures of what it saw are left in `target/storefront`.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use weir_lab::settings::Publish;
use weir_lab::shop::ADMIN_PORT;
use weir_lab::{Lab, build};

const READY_WITHIN: Duration = Duration::from_secs(90);
/// The browser says something at least this often.
const SILENT_MAX: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let chromium = chromium();
    // Shown beside the name: there is no other place for the reason why it is ignored.
    let missing = match chromium {
        Some(_) => "",
        None => "no chromium: apt-get install chromium",
    };
    let story = move || tell(&chromium.ok_or(missing)?);
    let test = Trial::test(
        "visitors_buy_see_their_order_come_and_a_page_that_says_what_is_missing",
        story,
    );
    let test = test
        .with_kind(missing)
        .with_ignored_flag(!missing.is_empty());
    libtest_mimic::run(&Arguments::from_args(), vec![test]).exit_code()
}

fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("chromium"))
        .find(|program| program.is_file())
}

fn tell(chromium: &Path) -> Result<(), Failed> {
    let root = build::root();
    build::everything(&root)?;
    let folder = root.join("demo-boutique/browser");
    let built = Command::new(folder.join("build")).output()?;
    if !built.status.success() {
        return Err(format!("{built:?}").into());
    }
    let all = shop(&root, &[""], true)?;
    for story in ["all", "unheard"] {
        visit(&all, chromium, &folder, story)?;
    }
    drop(all);
    let alone = ["namespace.yaml", "storefront.yaml", "catalog.yaml"];
    visit(&shop(&root, &alone, false)?, chromium, &folder, "alone")
}

/// `story`: of those that the browser's part has.
fn visit(lab: &Lab, chromium: &Path, folder: &Path, story: &str) -> Result<(), Failed> {
    let page = lab.published("storefront").ok_or("it is not published")?;
    let pictures = binaries()?.with_file_name("storefront");
    // What a browser leaves behind goes with this.
    let home = tempfile::tempdir()?;
    let mut browser = Command::new("node")
        .arg(folder.join("dist/main.js"))
        .args([chromium, Path::new(&format!("http://{page}")), &pictures])
        .arg(story)
        .envs([("HOME", home.path()), ("TMPDIR", home.path())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let ended = perform(lab, page, &mut browser);
    if ended.is_err() {
        let _ = browser.kill();
    }
    let status = browser.wait()?;
    ended?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("the browser's part: {status}").into())
    }
}

/// So much of it: files of `demo-boutique/k8s`, or all of them.
fn shop(root: &Path, parts: &[&str], mesh: bool) -> Result<Lab, Failed> {
    let mut builder = Lab::builder()
        .program(binaries()?.join("weir-lab"))
        .mesh(mesh)
        .publish(Publish {
            service: "storefront".into(),
            port: 8080,
            host_port: 0,
        });
    for part in parts {
        builder = builder.manifests(root.join("demo-boutique/k8s").join(part));
    }
    for image in weir_lab::image::boutique(&root.join("demo-boutique")) {
        builder = builder.image(image);
    }
    let lab = builder.start()?;
    lab.wait_ready(READY_WITHIN)?;
    Ok(lab)
}

/// Where cargo puts binaries, for the profile of this test.
fn binaries() -> Result<PathBuf, Failed> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::parent);
    Ok(folder.ok_or("it lies in target/PROFILE/deps")?.to_owned())
}

/// Does what the browser's part asks for, until it has nothing more to say.
fn perform(lab: &Lab, page: SocketAddr, browser: &mut Child) -> Result<(), Failed> {
    println!("the shop is open at http://{page}");
    let mut answers = browser.stdin.take().ok_or("it is piped")?;
    let lines = lines_of(browser)?;
    loop {
        let line = match lines.recv_timeout(SILENT_MAX) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(format!("the browser said nothing for {SILENT_MAX:?}").into());
            }
        };
        let Some(asked) = line.strip_prefix("ask: ") else {
            println!("{line}");
            continue;
        };
        match asked.split_once(' ') {
            Some(("freeze", service)) => lab.stop(service)?,
            Some(("thaw", service)) => lab.cont(service)?,
            Some(("mute", service)) => mute(lab, service, true)?,
            Some(("unmute", service)) => mute(lab, service, false)?,
            _ => return Err(format!("asked for {asked:?}").into()),
        }
        answers.write_all(b"done\n")?;
    }
}

/// Whether the app can ask its sidecar. The node can: probes are none of this.
fn mute(lab: &Lab, service: &str, muted: bool) -> Result<(), Failed> {
    let pod = lab.pod(service)?;
    let pid = pod.containers.iter().find_map(|one| one.state.pid);
    let pid = pid.ok_or("nothing runs in it")?.to_string();
    let rules = match muted {
        true => format!(
            "add table inet muted\n\
             add chain inet muted input {{ type filter hook input priority filter; policy accept; }}\n\
             add rule inet muted input iifname lo tcp dport {ADMIN_PORT} drop\n"
        ),
        false => "delete table inet muted".to_owned(),
    };
    let nft = ["nsenter", "--net", "--target", &pid, "nft", &rules];
    let done = lab.exec(None, &nft)?;
    match done.code {
        0 => Ok(()),
        code => Err(format!("nft: {code}: {}", done.stderr).into()),
    }
}

fn lines_of(browser: &mut Child) -> Result<Receiver<String>, Failed> {
    let stdout = browser.stdout.take().ok_or("it is piped")?;
    let (told, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if told.send(line).is_err() {
                return;
            }
        }
    });
    Ok(lines)
}
