//! One sidecar or relay, watched: it starts under a profiler, carries a number of requests, and ends.

use std::time::Duration;

use crate::certificates::Certificates;
use crate::engine::{Engine, Trouble};
use crate::run::{self, Pace, Plan as Load};
use crate::shape::Shape;
use crate::subject::{Kind, Plan, Scale, Subject, World};
use crate::{mesh, tools};

/// Far more than it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(100);

pub struct Stage {
    pub world: World,
    /// Goes with the stage.
    _folder: tempfile::TempDir,
}

impl Stage {
    pub fn new() -> Result<Self, Trouble> {
        Self::prepare().map_err(|error| Trouble::Io("preparing".into(), error))
    }

    fn prepare() -> std::io::Result<Self> {
        let control_plane = tools::control_plane_folder()?;
        let folder = tempfile::Builder::new()
            .prefix("bench-run-")
            .tempdir_in(&control_plane)?;
        let path = folder.path().to_path_buf();
        let world = World {
            certificates: Certificates::make(&path)?,
            envoy: None,
            control_plane: Some(mesh::ControlPlane::start(&control_plane, &path)?),
            binaries: tools::release_folder()?,
            image: None,
            wrapper: Vec::new(),
            folder: path,
        };
        Ok(Self {
            world,
            _folder: folder,
        })
    }

    /// One life of Weir's sidecar, or of the relay, under `wrapper`, with so many requests in it, one after the other,
    /// each step of them when the one before is over.
    pub fn live(
        &mut self,
        kind: Kind,
        wrapper: Vec<String>,
        shape: Shape,
        requests: u64,
        engine: &mut Engine,
    ) -> Result<(), Trouble> {
        self.world.wrapper = wrapper;
        // Their addresses are redirected to different places.
        let number = u8::from(kind == Kind::Relay);
        let plan = Plan {
            kind,
            hops: 1,
            policies: true,
            image: false,
            number,
            scale: Scale::default(),
        };
        let load = Load {
            shape,
            target: plan.target(shape),
            connections: 1,
            pace: Pace::Count { requests },
            warm_up: Duration::ZERO,
            time: PATIENCE,
            seed: 0,
        };
        let mut subject = Subject::start(plan, &self.world, engine)?;
        engine.be_patient_with(Some(subject.processes[0].id()));
        let observed = run::run(engine, &load, &|| Duration::ZERO);
        engine.be_patient_with(None);
        let observed = observed?;
        if observed.completed != requests {
            let (got, fault) = (observed.completed, observed.fault.unwrap_or("too slow"));
            let text = format!("{shape}: {got} of {requests} answers: {fault}");
            return Err(Trouble::Failed(text));
        }
        subject.processes[0].end(Duration::from_secs(20));
        Ok(())
    }
}
