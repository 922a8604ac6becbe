//! Weir as a subject: sidecars under one control plane, with its own defaults and what the experiment asks for.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::client::Way;
use crate::mesh::{self, NO_DRAIN, SOURCE_SETTLES, Sidecar};
use crate::process::{Process, pause};
use crate::sandbox;
use crate::subject::{Ask, Lane, PORT, Ports, Proxies, World, redirect_way};

/// On the sockets of sidecars before an app: these are not redirected to them again.
const APP_MARK: u32 = 0x100_0000;
/// Weir's own defaults.
const DRAIN: [Duration; 2] = [Duration::from_millis(1500), Duration::from_secs(30)];

impl Lane {
    pub fn weir(
        self,
        world: &World,
        ports: &mut Ports,
        proxies: usize,
        replicas: &[Ipv4Addr],
        ask: &Ask,
    ) -> io::Result<Proxies> {
        let mut running = self.publish(world, &self.resources(proxies, replicas, ask))?;
        for proxy in 0..proxies {
            self.weir_caller(world, ports, proxy, &mut running)?;
        }
        Ok(running)
    }

    pub fn weir_app(self, world: &World, ports: &mut Ports, ask: &Ask) -> io::Result<Proxies> {
        let mut running = self.publish(world, &self.pods(1, &[0], ask))?;
        let ports = ports.take()?;
        running.processes.push(self.weir_pod(world, ports, 0)?);
        running.wait_until(|| mesh::is_ready(ports[2]))?;
        running.ways.push(Way {
            from: self.caller(0),
            to: (self.replica(0), PORT).into(),
        });
        Ok(running)
    }

    /// Callers before these pods.
    pub fn weir_mesh(
        self,
        world: &World,
        ports: &mut Ports,
        callers: usize,
        which: &[usize],
        ask: &Ask,
    ) -> io::Result<(Proxies, Vec<Process>)> {
        let mut running = self.publish(world, &self.pods(callers, which, ask))?;
        let mut pods = Vec::new();
        for which in which {
            let ports = ports.take()?;
            pods.push(self.weir_pod(world, ports, *which)?);
            running.wait_until(|| mesh::is_ready(ports[2]))?;
        }
        for caller in 0..callers {
            self.weir_caller(world, ports, caller, &mut running)?;
        }
        Ok((running, pods))
    }

    /// A caller, and so many pods, each of a service that the one before it calls.
    pub fn weir_chain(
        self,
        world: &World,
        ports: &mut Ports,
        pods: usize,
        asks: &[Ask; 2],
    ) -> io::Result<Proxies> {
        let mut yaml = self.callers_yaml(1);
        for which in 0..pods {
            let endpoint = (self.replica(which).to_string(), self.pod(which));
            yaml += &mesh::pod(&endpoint.1, &self.service(which), &endpoint.0, true);
            yaml += &self.service_yaml(which, &[endpoint], &asks[which.min(1)]);
        }
        let mut running = self.publish(world, &yaml)?;
        for which in 0..pods {
            let ports = ports.take()?;
            running.processes.push(self.weir_pod(world, ports, which)?);
            running.wait_until(|| mesh::is_ready(ports[2]))?;
            if which + 1 < pods {
                redirect_way(self.onward(which), ports[0])?;
            }
        }
        self.weir_caller(world, ports, 0, &mut running)?;
        Ok(running)
    }

    /// The sidecar of one pod, not yet ready.
    pub fn weir_pod(self, world: &World, ports: [u16; 3], which: usize) -> io::Result<Process> {
        let mark = APP_MARK + u32::from(self.number) * 0x100 + which as u32;
        let sidecar = Sidecar {
            pod: self.pod(which),
            address: IpAddr::V4(self.replica(which)),
            ports,
            mark,
            drain: DRAIN,
            wrapper: Vec::new(),
        };
        let process = sidecar.start(&world.control_plane, &world.binaries, &world.folder)?;
        sandbox::redirect(self.replica(which).octets(), PORT, ports[1], Some(mark))?;
        Ok(process)
    }

    /// Callers, and these pods behind the service, all with sidecars.
    pub fn pods(self, callers: usize, which: &[usize], ask: &Ask) -> String {
        let mut yaml = self.callers_yaml(callers);
        let mut endpoints = Vec::new();
        for which in which {
            let address = self.replica(*which).to_string();
            yaml += &mesh::pod(&self.pod(*which), &self.service(0), &address, true);
            endpoints.push((address, self.pod(*which)));
        }
        yaml + &self.service_yaml(0, &endpoints, ask)
    }

    /// The same while one of them is not ready: known, and not called.
    pub fn starting(self, which: &[usize], new: usize, ask: &Ask) -> String {
        let ready: Vec<usize> = which
            .iter()
            .copied()
            .filter(|which| *which != new)
            .collect();
        let address = self.replica(new).to_string();
        let new = mesh::pod(&self.pod(new), &self.service(0), &address, true);
        new + &self.pods(1, &ready, ask)
    }

    /// Each has an identity of its own: the last part of a name is not in it.
    fn caller_pod(self, caller: usize) -> String {
        format!("caller{caller}-{}", self.number)
    }

    fn pod(self, which: usize) -> String {
        format!("app-{}-{which}", self.number)
    }

    /// The sidecar of one caller.
    fn weir_caller(
        self,
        world: &World,
        ports: &mut Ports,
        proxy: usize,
        running: &mut Proxies,
    ) -> io::Result<()> {
        let ports = ports.take()?;
        let sidecar = Sidecar {
            pod: self.caller_pod(proxy),
            address: IpAddr::V4(self.caller(proxy)),
            ports,
            mark: 0,
            drain: NO_DRAIN,
            wrapper: Vec::new(),
        };
        let process = sidecar.start(&world.control_plane, &world.binaries, &world.folder)?;
        running.processes.push(process);
        running.wait_until(|| mesh::is_ready(ports[2]))?;
        let way = self.way(proxy, 0);
        redirect_way(way, ports[0])?;
        running.ways.push(way);
        Ok(())
    }

    /// Callers with sidecars before replicas without.
    fn resources(self, callers: usize, replicas: &[Ipv4Addr], ask: &Ask) -> String {
        let mut yaml = self.callers_yaml(callers);
        let mut endpoints = Vec::new();
        for (which, address) in replicas.iter().enumerate() {
            let name = format!("replica-{}-{which}", self.number);
            yaml += &mesh::pod(&name, &self.service(0), &address.to_string(), false);
            endpoints.push((address.to_string(), name));
        }
        yaml + &self.service_yaml(0, &endpoints, ask)
    }

    fn callers_yaml(self, callers: usize) -> String {
        let pod = |caller| {
            let name = self.caller_pod(caller);
            mesh::pod(&name, &name, &self.caller(caller).to_string(), true)
        };
        (0..callers).map(pod).collect()
    }

    fn service_yaml(self, which: usize, endpoints: &[(String, String)], ask: &Ask) -> String {
        let service = self.service(which);
        let entry = self.entry(which).to_string();
        mesh::service(&service, &entry, endpoints, &[("http", PORT)]) + &policy(&service, ask)
    }

    /// Puts resources in force for as long as the proxies run.
    fn publish(self, world: &World, yaml: &str) -> io::Result<Proxies> {
        let mut running = Proxies::default();
        running.published = Some(self.put(world, yaml)?);
        pause(SOURCE_SETTLES);
        Ok(running)
    }

    /// Puts resources in force, in place of what this lane had.
    pub fn put(self, world: &World, yaml: &str) -> io::Result<PathBuf> {
        let file = format!("lane-{}.yaml", self.number);
        // What the control plane refuses it only logs, and the sidecar would run without.
        weir_config::parse(&file, yaml).map_err(|mistakes| {
            let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            io::Error::other(mistakes.join("; "))
        })?;
        world.control_plane.publish(&file, yaml)?;
        Ok(world.control_plane.path(&format!("source/{file}")).into())
    }
}

/// What the user of Weir writes for it; all the rest is Weir's own default.
fn policy(service: &str, ask: &Ask) -> String {
    let mut retries = format!("attempts: {}", ask.attempts);
    if let Some(per_try) = ask.per_try {
        retries += &format!(", perTryTimeout: {}ms", per_try.as_millis());
    }
    let line = |text: &str, block: &str| match text {
        "" => String::new(),
        text => format!("{block}    {text}\n"),
    };
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {{name: {service}, namespace: bench}}\nspec:\n\
         \x20 targetRefs: [{{kind: Service, name: {service}}}]\n\
         \x20 outbound:\n    deadline: {}\n    retries: {{{retries}}}\n{}{}---\n",
        weir_config::units::Duration::from_millis(ask.deadline.as_millis() as u64),
        line(ask.outbound, ""),
        line(ask.inbound, "  inbound:\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Script, cases};
    use crate::subject::Kind;

    #[test]
    fn what_every_case_asks_for_is_a_policy_that_the_control_plane_takes() {
        let lane = Lane {
            kind: Kind::Weir,
            number: 300,
        };
        for case in cases() {
            let ask = match &case.script {
                Script::Outage(outage) => outage.ask,
                Script::Rolling(rolling) => rolling.ask,
                Script::Chain(chain) => chain.asks[0],
                Script::Backpressure(stalled) => stalled.others.ask,
            };
            let yaml = lane.pods(2, &[0, 1], &ask);
            let resources = weir_config::parse("lane.yaml", &yaml);
            let resources = resources.unwrap_or_else(|mistakes| {
                panic!("{} {}: {mistakes:?}", case.experiment, case.name)
            });
            // Two callers, two pods, the service, its endpoints and the policy.
            assert_eq!(resources.len(), 7, "{yaml}");
        }
    }
}
