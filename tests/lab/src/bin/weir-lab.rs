//! `weir-lab`: see [`weir_lab::cli`] for its words.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use weir_lab::cli::{Cli, Mesh, Net, Up, Verb};
use weir_lab::client::{Client, Command};
use weir_lab::control::{Bulletin, Request, Status};
use weir_lab::error::Doing;
use weir_lab::outer::Outer;
use weir_lab::wire::Inbox;
use weir_lab::{Error, Lab, Result, chaos, run};

/// Prints a line. A reader that went away (`weir-lab up | head`) is no reason to end a lab.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

fn main() -> ExitCode {
    if let Some(code) = weir_lab::run_if_asked() {
        return code;
    }
    let cli = Cli::parse();
    match carry_out(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weir-lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(cli: Cli) -> Result<ExitCode> {
    let request = match cli.verb {
        Verb::Up(up) => return start(up),
        Verb::Down { id, all } => return down(id.or(cli.run), all),
        Verb::Runs => return runs(),
        Verb::Chaos(verb) => return chaos::command::carry_out(verb),
        Verb::Report { folder, overview } => {
            return chaos::command::report(&folder, overview.as_deref());
        }
        Verb::Ps => return ps(&client(cli.run)?),
        Verb::Logs {
            pod,
            container,
            follow,
        } => {
            let folder = run::find(cli.run.as_deref())?.folder;
            return logs(&folder, &pod, container.as_deref(), follow);
        }
        Verb::Exec {
            pod,
            container,
            command,
        } => {
            return exec(&client(cli.run)?, pod, container, command);
        }
        Verb::Kill { pod, whole } => Request::Kill {
            target: pod,
            pod: whole,
        },
        Verb::Stop { pod, app_only } => Request::Stop {
            target: pod,
            app_only,
        },
        Verb::Cont { pod } => Request::Cont { target: pod },
        Verb::Restart { pod } => Request::Restart { target: pod },
        Verb::Scale { workload, replicas } => Request::Scale { workload, replicas },
        Verb::Net(Net::Drop { left, right }) => Request::NetDrop { left, right },
        Verb::Net(Net::Loss { percent, pod }) => Request::NetLoss {
            percent,
            target: pod,
        },
        Verb::Net(Net::Heal) => Request::NetHeal,
    };
    client(cli.run)?.ask(&request)?;
    Ok(ExitCode::SUCCESS)
}

fn client(id: Option<String>) -> Result<Client> {
    Ok(Client::new(&run::find(id.as_deref())?.folder))
}

fn start(up: Up) -> Result<ExitCode> {
    let mut builder = Lab::builder()
        .mesh(up.mesh == Mesh::On)
        .cni(up.cni)
        .keep(up.keep);
    if up.rootless {
        builder = builder.rootless(true);
    }
    if let Some(folder) = up.bin_dir {
        builder = builder.bin_dir(folder);
    }
    for path in up.manifests {
        builder = builder.manifests(path);
    }
    for path in up.policies {
        builder = builder.policies(path);
    }
    for mapping in shop_images().into_iter().chain(up.images) {
        builder = builder.image(mapping);
    }
    for (workload, count) in up.replicas {
        builder = builder.replicas(&workload, count);
    }
    for (workload, name, value) in up.env {
        builder = builder.env(&workload, &name, &value);
    }
    for publish in up.publish {
        builder = builder.publish(publish);
    }
    let (outer, _) = builder.launch()?;
    introduce(&outer);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.doing(|| "start the runtime".to_owned())?;
    runtime.block_on(attend(outer, up.seconds.map(Duration::from_secs)))
}

/// The boutique's images, when the checkout is where we are.
fn shop_images() -> Vec<weir_lab::image::Mapping> {
    weir_lab::image::boutique(Path::new("demo-boutique"))
}

fn introduce(outer: &Outer) {
    say!(
        "lab {} in {}",
        outer.settings.id,
        outer.settings.folder.display()
    );
    if outer.settings.mesh {
        let socket = outer.settings.folder.join("operator.sock");
        say!(
            "control plane: export WEIR_CONTROL_PLANE=unix:{}",
            socket.display()
        );
    }
    for (publish, address) in outer.settings.publish.iter().zip(&outer.published) {
        say!("{}:{} at http://{address}", publish.service, publish.port);
    }
}

/// Signals this close together are one.
const ONE_WISH: Duration = Duration::from_millis(300);

/// Prints what the lab says until it ends: by itself, by Ctrl-C (twice: at once), or by the clock.
async fn attend(outer: Outer, limit: Option<Duration>) -> Result<ExitCode> {
    let lifeline = outer.lifeline().doing(|| "copy the lifeline".to_owned())?;
    let (heard, mut bulletins) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut inbox = Inbox::default();
        while let Ok(Some((bulletin, _))) = inbox.receive::<Bulletin>(&lifeline) {
            let _ = heard.send(bulletin);
        }
    });
    let watch = |kind| signal(kind).doing(|| "listen to signals".to_owned());
    let (mut interrupt, mut terminate) = (
        watch(SignalKind::interrupt())?,
        watch(SignalKind::terminate())?,
    );
    let mut hangup = watch(SignalKind::hangup())?;
    let over = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    let mut ending: Option<Instant> = None;
    loop {
        let wish = tokio::select! {
            bulletin = bulletins.recv() => {
                match bulletin {
                    Some(Bulletin::News(text)) => say!("{text}"),
                    Some(Bulletin::Failed(why)) => return Err(Error::Lab(why)),
                    Some(Bulletin::Serving) => {}
                    Some(Bulletin::Ended) => break,
                    None => return Err(Error::Lab("the lab is gone".to_owned())),
                }
                continue;
            }
            _ = interrupt.recv() => "interrupted",
            _ = terminate.recv() => "asked to end",
            _ = hangup.recv() => "the terminal is gone",
            () = &mut over, if ending.is_none() => "time is over",
        };
        if let Some(since) = ending {
            // `timeout` signals a process and its group: twice in a moment is one wish.
            if since.elapsed() < ONE_WISH {
                continue;
            }
            say!("ending at once");
            return Ok(ExitCode::FAILURE);
        }
        ending = Some(Instant::now());
        say!("{wish}: ending gracefully; Ctrl-C ends it at once");
        outer.ask_down();
    }
    outer.wait()?;
    std::process::exit(0)
}

fn down(id: Option<String>, all: bool) -> Result<ExitCode> {
    let mut hit = run::all()?;
    if let Some(id) = &id {
        hit.retain(|run| run.id == *id);
    } else if !all {
        hit = vec![run::find(None)?];
    }
    if hit.is_empty() {
        return Err(Error::Request("there is no such run".to_owned()));
    }
    for run in hit {
        if run.is_alive() {
            Client::new(&run.folder).ask(&Request::Down)?;
            while run.is_alive() {
                wait(Duration::from_millis(50));
            }
            say!("lab {} has ended", run.id);
        } else {
            say!("lab {} was dead; its directory is removed", run.id);
        }
        // Gone already, unless it was to be kept or its lab died.
        let _ = std::fs::remove_dir_all(&run.folder);
    }
    Ok(ExitCode::SUCCESS)
}

/// A pause in a program that has nothing else to do.
#[expect(
    clippy::disallowed_methods,
    reason = "no runtime and no clock to mock in here"
)]
fn wait(pause: Duration) {
    std::thread::sleep(pause);
}

fn runs() -> Result<ExitCode> {
    for run in run::all()? {
        let state = if run.is_alive() { "running" } else { "dead" };
        say!("{:6} {state:8} {}", run.id, run.folder.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn ps(client: &Client) -> Result<ExitCode> {
    print!("{}", table(&client.status()?));
    Ok(ExitCode::SUCCESS)
}

fn table(status: &Status) -> String {
    let mut rows =
        vec![["POD", "ADDRESS", "READY", "MESH", "RESTARTS", "STATE"].map(str::to_owned)];
    for pod in &status.pods {
        let restarts: u32 = pod.containers.iter().map(|one| one.state.restarts).sum();
        let state = match (pod.terminating, pod.message.as_str()) {
            (true, _) => "ending".to_owned(),
            (false, "") => pod.phase.clone(),
            (false, why) => why.to_owned(),
        };
        let mark = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        rows.push([
            format!("{}/{}", pod.namespace, pod.name),
            pod.address.to_string(),
            mark(pod.ready),
            mark(pod.meshed),
            restarts.to_string(),
            state,
        ]);
    }
    let mut text = columns(&rows);
    let mut rows = vec![["SERVICE", "ADDRESS", "ENDPOINTS"].map(str::to_owned)];
    for service in &status.services {
        for (address, endpoints) in &service.ports {
            let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
            let name = format!("{}/{}", service.namespace, service.name);
            rows.push([name, address.to_string(), endpoints.join(" ")]);
        }
    }
    text.push('\n');
    text + &columns(&rows)
}

fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// Logs are files; the lab itself is not asked, and may be gone.
fn logs(folder: &Path, pod: &str, container: Option<&str>, follow: bool) -> Result<ExitCode> {
    // `catalog/1` is `catalog-1` on disk.
    let prefix = pod.rsplit_once('/').map_or(pod.to_owned(), |(name, last)| {
        let ordinal = last.parse::<u32>().is_ok();
        let name = name.rsplit('/').next().unwrap_or(name);
        if ordinal {
            format!("{name}-{last}")
        } else {
            last.to_owned()
        }
    });
    let logs = folder.join("logs");
    let entries = std::fs::read_dir(&logs).doing(|| format!("list {}", logs.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let own = name
            .strip_prefix(&prefix)
            .is_some_and(|rest| rest.starts_with('-'));
        own && container.is_none_or(|container| name.ends_with(&format!("-{container}.log")))
    });
    files.sort();
    if files.is_empty() {
        return Err(Error::Request(format!(
            "no log of {pod} in {}",
            logs.display()
        )));
    }
    let mut read = vec![0; files.len()];
    loop {
        for (path, read) in files.iter().zip(&mut read) {
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let fresh = from(path, *read).doing(|| format!("read {}", path.display()))?;
            *read += fresh.len() as u64;
            let mut out = std::io::stdout().lock();
            for line in String::from_utf8_lossy(&fresh).lines() {
                // A closed pipe is how `weir-lab logs | head` ends.
                if writeln!(out, "{name} | {line}").is_err() {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        wait(Duration::from_millis(200));
    }
}

fn from(path: &Path, offset: u64) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    // A log that was rotated starts again.
    let offset = if file.metadata()?.len() < offset {
        0
    } else {
        offset
    };
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn exec(
    client: &Client,
    pod: String,
    container: Option<String>,
    argv: Vec<String>,
) -> Result<ExitCode> {
    let on_node = pod == "node";
    let command = Command {
        target: (!on_node).then_some(pod),
        container,
        argv,
        env: if on_node {
            std::env::vars().collect()
        } else {
            Vec::new()
        },
        folder: if on_node {
            std::env::current_dir().ok()
        } else {
            None
        },
    };
    let streams = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let running = client.run(command, [&streams.0, &streams.1, &streams.2])?;
    let code = running.wait()?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
