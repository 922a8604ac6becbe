//! Who takes part.

use crate::arguments::{Arguments, Effort};
use crate::certificates::Certificates;
use crate::engine::{Engine, Trouble};
use crate::shape::Shape;
use crate::subject::{Kind, Plan, Scale, Subject, World};
use crate::table::Report;
use crate::{mesh, peers, tools, weir};

/// The mesh as a test knows it; each case below has more of one thing.
const SMALL: Scale = Scale {
    services: 10,
    endpoints: 3,
    routes: 1,
};
pub const SCALES: [Scale; 4] = [
    SMALL,
    Scale {
        services: 1000,
        ..SMALL
    },
    Scale {
        endpoints: 500,
        ..SMALL
    },
    Scale {
        routes: 100,
        ..SMALL
    },
];
/// With 1,000 others of five endpoints each, nothing else.
pub const LARGE: Scale = Scale {
    services: 1000,
    endpoints: 1,
    routes: 0,
};

pub struct Lineup {
    pub plans: Vec<Plan>,
    only: Option<String>,
    /// Goes when the bench ends.
    folder: tempfile::TempDir,
}

impl Lineup {
    pub fn new(arguments: &Arguments, effort: &Effort) -> Result<Self, Trouble> {
        let peers = match &arguments.peers {
            Some(path) => peers::read(path).map_err(|error| Trouble::Failed(error.to_string()))?,
            None => Vec::new(),
        };
        let mut plans = all(effort.variants, peers);
        let mut only = arguments.only.clone();
        if let Some(part) = &only
            && plans.iter().any(|plan| plan.name().contains(part.as_str()))
        {
            plans.retain(|plan| is_reference(plan) || plan.name().contains(part.as_str()));
            only = None;
        }
        let target =
            tools::release_folder().map_err(|error| Trouble::Io("target".into(), error))?;
        let folder = tempfile::Builder::new()
            .prefix("bench-run-")
            .tempdir_in(target);
        let folder = folder.map_err(|error| Trouble::Io("a folder".into(), error))?;
        Ok(Self {
            plans,
            only,
            folder,
        })
    }

    pub fn world(&self) -> Result<World, Trouble> {
        let folder = self.folder.path().to_path_buf();
        let explain = |error| Trouble::Io("preparing".into(), error);
        let binaries = tools::release_folder().map_err(explain)?;
        Ok(World {
            certificates: Certificates::make(&folder).map_err(explain)?,
            envoy: tools::envoy(),
            control_plane: Some(mesh::ControlPlane::start(&binaries, &folder).map_err(explain)?),
            binaries,
            image: tools::image().map_err(explain)?,
            wrapper: Vec::new(),
            folder,
        })
    }

    /// Less, if only some shapes are asked for.
    pub fn effort(&self, effort: &Effort) -> Effort {
        let wanted = |shape: &Shape| {
            self.only
                .as_ref()
                .is_none_or(|part| shape.name().contains(part.as_str()))
        };
        let mut effort = effort.clone();
        effort.shapes.retain(wanted);
        effort.rated.retain(wanted);
        effort
    }

    /// Starts them all; who does not start is left out, visibly.
    pub fn start(
        &self,
        world: &World,
        engine: &mut Engine,
        report: &mut Report,
    ) -> Result<Vec<Subject>, Trouble> {
        let mut subjects = Vec::new();
        for plan in &self.plans {
            let started = Subject::start(plan.clone(), world, engine);
            subjects.extend(report.note(&plan.name(), started)?);
        }
        Ok(subjects)
    }

    /// The same call in meshes of different size.
    pub fn start_scaled(
        &self,
        world: &World,
        engine: &mut Engine,
        report: &mut Report,
    ) -> Result<Vec<Subject>, Trouble> {
        let first = 50;
        let mut subjects = Vec::new();
        for (number, scale) in (first..).zip(SCALES) {
            let plan = Plan {
                scale,
                ..weir_at(number)
            };
            let name = plan.name();
            let started = Subject::start(plan, world, engine).and_then(|subject| {
                weir::call_others(&subject.plan, engine)?;
                Ok(subject)
            });
            subjects.extend(report.note(&name, started)?);
        }
        Ok(subjects)
    }
}

fn weir_at(number: u8) -> Plan {
    Plan {
        kind: Kind::Weir,
        hops: 1,
        policies: true,
        image: false,
        number,
        scale: Scale::default(),
    }
}

pub fn scaled_effort(effort: &Effort) -> Effort {
    let shapes = [Shape::Http1, Shape::GrpcSmall];
    Effort {
        shapes: shapes
            .into_iter()
            .filter(|shape| effort.shapes.contains(shape))
            .collect(),
        rated: Vec::new(),
        ..effort.clone()
    }
}

fn all(variants: bool, peers: Vec<peers::Peer>) -> Vec<Plan> {
    let mut plans = vec![(Kind::Direct, 1, true)];
    for hops in [1, 2] {
        for kind in [
            Kind::Relay,
            Kind::Weir,
            Kind::Envoy,
            Kind::Haproxy,
            Kind::Nginx,
        ] {
            let has_variant = match kind {
                Kind::Weir | Kind::Envoy => variants,
                Kind::Relay => variants && hops == 1,
                _ => false,
            };
            plans.push((kind.clone(), hops, true));
            plans.extend(has_variant.then_some((kind, hops, false)));
        }
    }
    plans.extend(peers.into_iter().map(|peer| (Kind::Peer(peer), 1, true)));
    let numbered = plans.into_iter().zip(0..);
    let plan = |((kind, hops, policies), number)| Plan {
        kind,
        hops,
        policies,
        image: false,
        number,
        scale: Scale::default(),
    };
    let mut plans: Vec<Plan> = numbered.map(plan).collect();
    let number = u8::try_from(plans.len()).expect("fewer plans than numbers");
    plans.extend(variants.then(|| Plan {
        image: true,
        ..weir_at(number)
    }));
    plans
}

/// What others are compared with.
fn is_reference(plan: &Plan) -> bool {
    matches!(plan.kind, Kind::Direct | Kind::Relay)
}

/// Of Weir with a thousand services around it.
pub fn large() -> Plan {
    Plan {
        scale: LARGE,
        ..weir_at(60)
    }
}
