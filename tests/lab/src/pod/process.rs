//! What a container's processes run with: program, environment, user, mounts.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Child;

use super::Pod;
use crate::container::Container;
use crate::environment::{References, expand};
use crate::image;
use crate::mount::Bind;
use crate::sandbox::{self, Program, SCRATCH_IN_POD, Sandbox, Streams};

/// The user of a container that does not say, where the lab can choose.
const APP_USER: u32 = 1000;
/// Rootless, the sidecar cannot be told from the app by its user: it marks its sockets instead.
pub const PROXY_MARK: &str = "0x14102";
/// Variables of this machine that programs need to find themselves.
const INHERITED: [&str; 7] = [
    "PATH",
    "LANG",
    "TZ",
    "JAVA_HOME",
    "CARGO_TARGET_DIR",
    "LD_LIBRARY_PATH",
    "RUST_BACKTRACE",
];

impl Pod {
    /// Starts a container's process, its words going to its log.
    pub fn launch(&self, container: &Container) -> Result<Child, String> {
        let program = self.program(container)?;
        let log = self
            .log(&container.spec.name)
            .expect("every container has a log");
        log.note(&format!("start {}", program.argv.join(" ")));
        let (stdout, stderr) = log.streams().map_err(|error| error.to_string())?;
        let streams = Streams {
            stdin: Stdio::null(),
            stdout,
            stderr,
        };
        sandbox::spawn(&self.sandbox(container), &program, streams).map_err(|error| {
            log.note(&error.to_string());
            error.to_string()
        })
    }

    /// Runs another command in a container, as a probe or a hook does.
    pub async fn exec(&self, container: &Container, command: &[String]) -> Result<(), String> {
        let log = self
            .log(&container.spec.name)
            .expect("every container has a log");
        let (stdout, stderr) = log.streams().map_err(|error| error.to_string())?;
        let streams = Streams {
            stdin: Stdio::null(),
            stdout,
            stderr,
        };
        let mut child = self.start_in(container, command, streams)?;
        let status = child.wait().await.map_err(|error| error.to_string())?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("{} {status}", command.join(" "))),
        }
    }

    /// Starts a command with a container's environment, user and mounts.
    pub fn start_in(
        &self,
        container: &Container,
        command: &[String],
        streams: Streams,
    ) -> Result<Child, String> {
        let mut program = self.program(container)?;
        program.argv = self.in_place(command);
        sandbox::spawn(&self.sandbox(container), &program, streams)
            .map_err(|error| error.to_string())
    }

    /// Our own binaries have a place of their own in an image; here they are in a directory.
    fn in_place(&self, command: &[String]) -> Vec<String> {
        let mut argv = command.to_vec();
        if let Some(first) = argv.first_mut()
            && matches!(first.as_str(), "/weir-proxy" | "weir-proxy")
        {
            *first = self
                .node
                .settings
                .bin_dir
                .join("weir-proxy")
                .display()
                .to_string();
        }
        argv
    }

    fn sandbox(&self, container: &Container) -> Sandbox {
        let node = &self.node;
        let own = node.pods().join(&self.uid);
        let fixed = [
            (own.join("hosts"), "/etc/hosts"),
            (node.resolv_conf(), "/etc/resolv.conf"),
            (node.nsswitch_conf(), "/etc/nsswitch.conf"),
        ];
        let mut binds: Vec<Bind> = fixed
            .into_iter()
            .map(|(source, target)| Bind {
                source,
                target: target.into(),
                read_only: true,
            })
            .collect();
        for mount in &container.spec.volume_mounts {
            let volume = self.volumes.iter().find(|(name, _)| *name == mount.name);
            let Some((_, folder)) = volume else { continue };
            binds.push(Bind {
                source: folder.join(mount.sub_path.as_deref().unwrap_or_default()),
                target: (&mount.mount_path).into(),
                read_only: mount.read_only,
            });
        }
        Sandbox {
            door: self.door(),
            hostname: self.name.clone(),
            binds,
            scratch: node.scratch(),
        }
    }

    fn program(&self, container: &Container) -> Result<Program, String> {
        let settings = &self.node.settings;
        let spec = &container.spec;
        let entry = image::entry(spec, &settings.images, &settings.bin_dir)?;
        let references = References {
            pod: &self.object,
            namespace: &self.namespace,
            manifests: &self.node.manifests,
        };
        let mut env: Vec<(String, String)> = INHERITED
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
            .collect();
        env.push(("HOSTNAME".to_owned(), self.name.clone()));
        env.push(("HOME".to_owned(), SCRATCH_IN_POD.to_owned()));
        env.push(("TMPDIR".to_owned(), SCRATCH_IN_POD.to_owned()));
        let own = references.environment(spec)?;
        let mut argv: Vec<String> = entry.argv.iter().map(|word| expand(word, &own)).collect();
        env.extend(own);
        let ours = matches!(
            spec.name.as_str(),
            "weir-init" | "weir-validate" | "weir-proxy"
        );
        if !ours && let Some(more) = settings.env.get(&self.workload) {
            env.extend(more.iter().cloned());
        }
        if settings.rootless && spec.name == "weir-init" {
            argv.push(format!("--proxy-mark={PROXY_MARK}"));
        }
        if settings.rootless && spec.name == "weir-proxy" {
            env.push(("WEIR_SOCKET_MARK".to_owned(), PROXY_MARK.to_owned()));
        }
        Ok(Program {
            argv,
            env,
            folder: spec
                .working_dir
                .as_ref()
                .map(PathBuf::from)
                .or(entry.folder),
            user: (!settings.rootless).then(|| self.user(container)),
            no_new_privileges: spec.security_context.allow_privilege_escalation == Some(false),
        })
    }

    fn user(&self, container: &Container) -> (u32, u32) {
        let (own, pods) = (
            &container.spec.security_context,
            &self.spec.security_context,
        );
        let user = own.run_as_user.or(pods.run_as_user).unwrap_or(APP_USER);
        let group = own.run_as_group.or(pods.run_as_group).unwrap_or(user);
        (user, group)
    }
}
