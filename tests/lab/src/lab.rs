//! A lab for tests and programs: started by a builder, steered by methods, gone when dropped.
//!
//! ```no_run
//! # fn main() -> weir_lab::Result<()> {
//! let lab = weir_lab::Lab::builder()
//!     .manifests("demo-boutique/k8s")
//!     .replicas("catalog", 3)
//!     .start()?;
//! lab.wait_ready(std::time::Duration::from_secs(60))?;
//! lab.stop("catalog/1")?;
//! # Ok(()) }
//! ```

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::{Client, Command};
use crate::control::{Bulletin, PodStatus, Request, Status};
use crate::error::{Doing, Error, Result};
use crate::image::Mapping;
use crate::outer::Outer;
use crate::run;
use crate::settings::{Publish, Settings};

#[derive(Debug)]
pub struct Lab {
    outer: Option<Outer>,
    client: Client,
    folder: PathBuf,
}

/// How a command ended, and what it said.
#[derive(Clone, Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

#[derive(Clone, Debug, Default)]
pub struct Builder {
    settings: Settings,
    texts: Vec<String>,
    program: Option<PathBuf>,
    rootless: Option<bool>,
}

impl Builder {
    /// A YAML file, or a directory of them.
    pub fn manifests(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.manifests.push(path.into());
        self
    }

    /// YAML right here, for tests.
    pub fn yaml(mut self, text: impl Into<String>) -> Self {
        self.texts.push(text.into());
        self
    }

    /// A directory or file of weir.dev resources, watched in place.
    pub fn policies(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.policies.push(path.into());
        self
    }

    /// Whether pods get sidecars; they do not unless this says so.
    pub fn mesh(mut self, mesh: bool) -> Self {
        self.settings.mesh = mesh;
        self
    }

    /// The node writes the pods' rules, by a CNI plugin, and no pod has NET_ADMIN.
    pub fn cni(mut self, cni: bool) -> Self {
        self.settings.cni = cni;
        self
    }

    /// The plugin is not there yet when this workload's networks are made.
    pub fn without_plugin(mut self, workload: &str) -> Self {
        self.settings.without_plugin.push(workload.to_owned());
        self
    }

    /// A user namespace with one user. The default for everybody but root.
    pub fn rootless(mut self, rootless: bool) -> Self {
        self.rootless = Some(rootless);
        self
    }

    pub fn image(mut self, mapping: Mapping) -> Self {
        self.settings.images.push(mapping);
        self
    }

    /// Where `weir-proxy` and `weir-control-plane` are; beside this program by default.
    pub fn bin_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.bin_dir = folder.into();
        self
    }

    /// The program that becomes the lab; it must call [`run_if_asked`](crate::run_if_asked)
    /// first. This one by default.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    pub fn replicas(mut self, workload: &str, replicas: u32) -> Self {
        self.settings.replicas.insert(workload.to_owned(), replicas);
        self
    }

    /// A variable for the app containers of a workload.
    pub fn env(mut self, workload: &str, name: &str, value: &str) -> Self {
        let variables = self.settings.env.entry(workload.to_owned()).or_default();
        variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn publish(mut self, publish: Publish) -> Self {
        self.settings.publish.push(publish);
        self
    }

    /// Keeps the directory of the run, with its logs, when the lab ends.
    pub fn keep(mut self, keep: bool) -> Self {
        self.settings.keep = keep;
        self
    }

    /// Starts the lab. Its pods are on their way when this returns;
    /// [`Lab::wait_ready`] waits for them.
    pub fn start(self) -> Result<Lab> {
        let (outer, _) = self.launch()?;
        let mut lab = Lab {
            client: Client::new(&outer.settings.folder),
            folder: outer.settings.folder.clone(),
            outer: Some(outer),
        };
        lab.drain();
        Ok(lab)
    }

    /// For programs that listen to the lab's news themselves.
    pub fn launch(mut self) -> Result<(Outer, Client)> {
        run::prune()?;
        let run = run::create()?;
        let folder = run.folder.clone();
        self.settings.id = run.id;
        self.settings.folder.clone_from(&folder);
        self.settings.rootless = self
            .rootless
            .unwrap_or_else(|| !rustix::process::geteuid().is_root());
        let started = self.try_launch();
        if started.is_err() {
            let _ = fs::remove_dir_all(&folder);
        }
        started
    }

    fn try_launch(self) -> Result<(Outer, Client)> {
        let mut settings = self.settings;
        for (number, text) in self.texts.iter().enumerate() {
            let path = settings.folder.join(format!("given-{number}.yaml"));
            fs::write(&path, text).doing(|| format!("write {}", path.display()))?;
            settings.manifests.push(path);
        }
        let own = std::env::current_exe().doing(|| "find this program".to_owned())?;
        if settings.bin_dir.as_os_str().is_empty() {
            settings.bin_dir = beside(&own);
        }
        // The lab lives in another directory, and so do its containers.
        let folders = settings
            .images
            .iter_mut()
            .map(|mapping| &mut mapping.folder);
        let lists = settings.manifests.iter_mut().chain(&mut settings.policies);
        for path in lists.chain(folders).chain([&mut settings.bin_dir]) {
            *path = std::path::absolute(&*path).doing(|| format!("find {}", path.display()))?;
        }
        let client = Client::new(&settings.folder);
        let program = self.program.unwrap_or(own);
        Ok((Outer::start(&program, settings)?, client))
    }
}

/// The directory of cargo's binaries; tests run from `deps/` in there.
fn beside(program: &Path) -> PathBuf {
    let folder = program.parent().unwrap_or(Path::new("."));
    match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().unwrap_or(folder).to_path_buf(),
        _ => folder.to_path_buf(),
    }
}

impl Lab {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Somebody must read what the lab says, or it would stop talking.
    fn drain(&mut self) {
        let lifeline = self.outer.as_ref().and_then(|outer| outer.lifeline().ok());
        let Some(lifeline) = lifeline else { return };
        std::thread::spawn(move || {
            let mut inbox = crate::wire::Inbox::default();
            while let Ok(Some(_)) = inbox.receive::<Bulletin>(&lifeline) {}
        });
    }

    fn outer(&self) -> &Outer {
        self.outer.as_ref().expect("there until it is taken down")
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn id(&self) -> &str {
        &self.outer().settings.id
    }

    /// Logs, the cluster directory, sockets.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The socket of the control plane's operator API, for the `weir` command line.
    pub fn operator_socket(&self) -> PathBuf {
        self.folder.join("operator.sock")
    }

    /// Where the first published port of a Service is.
    pub fn published(&self, service: &str) -> Option<SocketAddr> {
        let outer = self.outer();
        let mut all = outer.settings.publish.iter().zip(&outer.published);
        all.find(|(publish, _)| publish.service == service)
            .map(|(_, address)| *address)
    }

    pub fn status(&self) -> Result<Status> {
        self.client.status()
    }

    /// One pod, by any of its names.
    pub fn pod(&self, name: &str) -> Result<PodStatus> {
        let target = crate::target::Target::parse(name).map_err(Error::Request)?;
        let pods = self.status()?.pods;
        let mut found = pods.into_iter().filter(|pod| {
            target.matches(crate::target::Name {
                namespace: &pod.namespace,
                workload: &pod.workload,
                ordinal: pod.ordinal,
                pod: &pod.name,
            })
        });
        found
            .next()
            .ok_or_else(|| Error::Request(format!("no pod is called {name}")))
    }

    pub fn wait_ready(&self, patience: Duration) -> Result<()> {
        self.client.wait_ready(patience)
    }

    /// SIGKILL to the app containers of these pods.
    pub fn kill(&self, target: &str) -> Result<()> {
        self.ask(Request::Kill {
            target: target.to_owned(),
            pod: false,
        })
    }

    /// Ends these pods at once, as a failing node would, and puts new ones in their place.
    pub fn kill_pod(&self, target: &str) -> Result<()> {
        self.ask(Request::Kill {
            target: target.to_owned(),
            pod: true,
        })
    }

    /// SIGSTOP to everything in these pods.
    pub fn stop(&self, target: &str) -> Result<()> {
        self.ask(Request::Stop {
            target: target.to_owned(),
            app_only: false,
        })
    }

    /// SIGSTOP to the app, not to the sidecar.
    pub fn stop_app(&self, target: &str) -> Result<()> {
        self.ask(Request::Stop {
            target: target.to_owned(),
            app_only: true,
        })
    }

    pub fn cont(&self, target: &str) -> Result<()> {
        self.ask(Request::Cont {
            target: target.to_owned(),
        })
    }

    /// Graceful, one pod after the other.
    pub fn restart(&self, target: &str) -> Result<()> {
        self.ask(Request::Restart {
            target: target.to_owned(),
        })
    }

    pub fn scale(&self, workload: &str, replicas: u32) -> Result<()> {
        self.ask(Request::Scale {
            workload: workload.to_owned(),
            replicas,
        })
    }

    /// Cuts the network between two sets of pods.
    pub fn net_drop(&self, left: &str, right: &str) -> Result<()> {
        self.ask(Request::NetDrop {
            left: left.to_owned(),
            right: right.to_owned(),
        })
    }

    pub fn net_loss(&self, percent: u8, target: &str) -> Result<()> {
        self.ask(Request::NetLoss {
            percent,
            target: target.to_owned(),
        })
    }

    pub fn net_heal(&self) -> Result<()> {
        self.ask(Request::NetHeal)
    }

    fn ask(&self, request: Request) -> Result<()> {
        self.client.ask(&request).map(drop)
    }

    /// A real TCP connection inside the lab: from a pod, or from the node.
    pub fn dial(&self, from: Option<&str>, to: &str) -> Result<TcpStream> {
        self.client.dial(from, to)
    }

    /// Runs a command in a pod's app container (or on the node) to its end.
    pub fn exec(&self, target: Option<&str>, argv: &[&str]) -> Result<Output> {
        let command = Command {
            target: target.map(str::to_owned),
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: match target {
                Some(_) => Vec::new(),
                None => std::env::vars().collect(),
            },
            ..Command::default()
        };
        let pipe = || std::io::pipe().doing(|| "make a pipe".to_owned());
        let ((out, out_there), (err, err_there)) = (pipe()?, pipe()?);
        let nothing = fs::File::open("/dev/null").doing(|| "open /dev/null".to_owned())?;
        let running = self
            .client
            .run(command, [&nothing, &out_there, &err_there])?;
        drop((out_there, err_there));
        let reading = [out, err].map(|mut pipe| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = pipe.read_to_end(&mut bytes);
                String::from_utf8_lossy(&bytes).into_owned()
            })
        });
        let [stdout, stderr] = reading.map(|thread| thread.join().unwrap_or_default());
        Ok(Output {
            code: running.wait()?,
            stdout,
            stderr,
        })
    }

    /// What a container said so far, over all its restarts.
    pub fn log(&self, pod: &str, container: &str) -> String {
        let path = self
            .folder
            .join("logs")
            .join(format!("{pod}-{container}.log"));
        fs::read_to_string(path).unwrap_or_default()
    }

    /// Ends everything gracefully.
    pub fn down(mut self) -> Result<()> {
        let outer = self.outer.take().expect("there until it is taken down");
        outer.ask_down();
        outer.wait()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.outer.is_some() && std::thread::panicking() {
            eprint!("{}", self.obituary());
        }
    }
}

impl Lab {
    /// For a test that fails: the state of every pod and the end of every log.
    fn obituary(&self) -> String {
        const LINES: usize = 15;
        let mut text = String::new();
        for pod in self.status().map(|status| status.pods).unwrap_or_default() {
            text += &format!(
                "--- {} {} ready={} {}\n",
                pod.name, pod.phase, pod.ready, pod.message
            );
            for container in pod.containers {
                let log = self.log(&pod.name, &container.name);
                let lines: Vec<&str> = log.lines().collect();
                let from = lines.len().saturating_sub(LINES);
                text += &format!(
                    "--- {}/{}\n{}\n",
                    pod.name,
                    container.name,
                    lines[from..].join("\n")
                );
            }
        }
        text
    }
}
