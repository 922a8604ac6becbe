//! `weir validate`: the control plane's own checks, before the control plane sees the files.

mod files;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use weir_config::diagnostic::Excerpt;
use weir_config::index::{Attachment, Index, Parent, ROUTES_MAX, Target, Unresolved};
use weir_config::pattern::PATTERNS_MAX;
use weir_config::resource::{
    FaultPolicy, GatewayRoute, ObjectName, ResiliencePolicy, TargetKind, TargetRef, Targeting,
};
use weir_config::units::Moment;
use weir_config::{Diagnostic, Kind, Resource, ResourceRef, Severity, compile, read_bytes};

use self::files::{File, Files};
use super::{Failure, Output, print};
use crate::time::rfc3339;

/// Check files before anybody applies them; needs no control plane
///
/// Every mistake is shown with its place and what to write instead. What is not ours (Deployments, ConfigMaps) is
/// passed over. Services in the same files are used to tell a policy whose target, or what it would fall back on, does not exist.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  weir validate -f policies/ -f services.yaml
  kubectl get resiliencepolicies -A -o yaml | weir validate -f -")]
pub(super) struct Arguments {
    /// A file, a directory (its .yaml, .yml and .json files), or - for stdin; may be given several times
    #[arg(short, long = "filename", value_name = "PATH", required = true, num_args = 1..)]
    filename: Vec<PathBuf>,

    /// text or json: one object a diagnostic, one a line
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Default)]
struct Found {
    files: Vec<String>,
    /// With something in them, those that were passed over included.
    documents: usize,
    policies: usize,
    diagnostics: Vec<Diagnostic>,
    /// What is said of whole files and of several at once: no line shows it.
    remarks: Vec<Diagnostic>,
    index: Index,
    places: BTreeMap<ResourceRef, Place>,
    /// They are there, though nothing is known of them.
    refused: HashSet<ResourceRef>,
}

#[derive(Clone)]
struct Place {
    file: String,
    line: usize,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut files = Files::default();
    for path in &arguments.filename {
        files.add(path);
    }
    let mut found = Found::default();
    for file in files.found {
        found.file(file);
    }
    found.finish();
    found.tell(arguments.output)?;
    let said = found.diagnostics.iter().chain(&found.remarks);
    let errors = said.filter(|diagnostic| diagnostic.is_error()).count();
    if errors > 0 {
        return Err(Failure::Failed(format!(
            "{} in {}",
            count(errors, "mistake"),
            count(found.files.len(), "file")
        )));
    }
    let summary = format!(
        "{}, {}: fine\n",
        count(found.files.len(), "file"),
        plural(found.policies, "policy", "policies")
    );
    match arguments.output {
        Output::Text => print(&summary),
        Output::Json => Ok(()),
    }
}

impl Found {
    fn file(&mut self, file: File) {
        let name = file.name;
        self.files.push(name.clone());
        let reading = match file.content {
            Ok(bytes) => read_bytes(&name, &bytes),
            Err(why) => {
                let nowhere = Place {
                    file: name,
                    line: 0,
                };
                self.remarks
                    .push(remark(Severity::Error, &nowhere, None, why));
                // Something was to be checked; that it cannot be is said.
                self.documents += 1;
                return;
            }
        };
        self.documents += reading.documents.max(reading.errors.len());
        self.diagnostics.extend(reading.errors);
        self.refused.extend(reading.refused);
        for resource in reading.resources {
            self.diagnostics.extend(resource.warnings);
            self.policies += usize::from(resource.value.kind().is_strict());
            let place = Place {
                file: name.clone(),
                line: resource.line,
            };
            self.define(resource.value, place);
        }
    }

    fn define(&mut self, resource: Resource, place: Place) {
        let reference = resource.reference();
        if let Some(other) = self.places.insert(reference.clone(), place.clone()) {
            let message = format!(
                "{reference} is in {} and in {}: the second would be refused",
                other.file, place.file
            );
            let error = remark(Severity::Error, &place, Some(&reference), message);
            self.remarks.push(error);
        }
        self.index.apply(resource);
    }

    /// What can be said only when all files are read.
    fn finish(&mut self) {
        if self.documents == 0 {
            let why = "a policy was looked for, and there is nothing but space and comments";
            let told = self.files.iter().map(|file| {
                let nowhere = Place {
                    file: file.clone(),
                    line: 0,
                };
                remark(Severity::Error, &nowhere, None, why.to_owned())
            });
            self.remarks.extend(told);
        }
        let mut told = self.unattached();
        told.extend(self.over());
        told.extend(self.outranked());
        self.remarks.extend(told);
    }

    fn tell(&self, output: Output) -> Result<(), Failure> {
        if output == Output::Json {
            for diagnostic in self.diagnostics.iter().chain(&self.remarks) {
                let object = serde_json::to_string(diagnostic).expect("plain data");
                print(&format!("{object}\n"))?;
            }
            return Ok(());
        }
        for diagnostic in &self.diagnostics {
            eprintln!("{diagnostic}");
        }
        for remark in &self.remarks {
            let severity = match remark.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            eprintln!("{severity}: {}: {}", remark.file, remark.message);
        }
        Ok(())
    }

    /// Faults that have been: the policy does nothing any more.
    fn over(&self) -> Vec<Diagnostic> {
        let now_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_millis());
        let over = self.index.fault_policies().filter_map(|policy| {
            let end_ms = end_ms(policy).filter(|end| u128::from(*end) <= now_ms)?;
            let reference = Resource::FaultPolicy((**policy).clone()).reference();
            let why = format!("has no effect: it was over at {}", rfc3339(end_ms));
            Some(self.warning(&reference, &why))
        });
        over.collect()
    }

    /// Of several MeshConfigs one is in force.
    fn outranked(&self) -> Vec<Diagnostic> {
        let meshes = self.places.keys().filter(|it| it.kind == Kind::MeshConfig);
        let outranked = meshes.filter_map(|reference| {
            let Attachment::Conflicted { winner } = self.index.mesh_attachment(&reference.name)
            else {
                return None;
            };
            let why = format!(
                "has no effect: {} comes first, as the older one or by its name",
                winner.name
            );
            Some(self.warning(reference, &why))
        });
        outranked.collect()
    }

    /// Policies that would have no effect. Only told when there are services to compare with.
    fn unattached(&self) -> Vec<Diagnostic> {
        if self.index.services().next().is_none() {
            return Vec::new();
        }
        let of_policies = self.index.policies().flat_map(|policy| {
            let reference = Resource::ResiliencePolicy((**policy).clone()).reference();
            let mut told = self.without_effect(&reference, self.index.attachments(policy));
            told.extend(self.missing_alternates(&reference, policy));
            told.extend(self.exceptions(&reference, policy));
            if policy.spec.is_for_callers() {
                told.extend(self.uncalled(&reference, &**policy));
            }
            told
        });
        let of_faults = self.index.fault_policies().flat_map(|policy| {
            let reference = Resource::FaultPolicy((**policy).clone()).reference();
            let mut told = self.without_effect(&reference, self.index.fault_attachments(policy));
            told.extend(self.uncalled(&reference, &**policy));
            told
        });
        let of_authorizations = self.index.authorization_policies().flat_map(|policy| {
            let reference = Resource::AuthorizationPolicy((**policy).clone()).reference();
            self.without_effect(&reference, self.index.authorization_attachments(policy))
        });
        let routes = self.index.http_routes();
        let routes = routes.flat_map(|route| self.unattached_route(&**route));
        let grpc_routes = self.index.grpc_routes();
        let grpc_routes = grpc_routes.flat_map(|route| self.unattached_route(&**route));
        of_policies
            .chain(of_faults)
            .chain(of_authorizations)
            .chain(routes)
            .chain(grpc_routes)
            .collect()
    }

    /// Parents and backends of a route that are not there, or not to be had.
    fn unattached_route<R: GatewayRoute>(&self, route: &R) -> Vec<Diagnostic> {
        let namespace = route.metadata().namespace();
        let reference = ResourceRef {
            kind: R::KIND,
            name: route.metadata().object_name(),
        };
        let parents = self.index.parents(route).into_iter();
        let mut told: Vec<Diagnostic> = parents
            .filter_map(|(parent, fares)| {
                let service = parent.service(namespace);
                let why = match fares {
                    Parent::Accepted => return None,
                    Parent::NoMatchingParent if self.is_refused(&service) => return None,
                    Parent::NoMatchingParent => {
                        "none of these files has it, or no such port of it".to_owned()
                    }
                    Parent::TooMany => {
                        format!("{ROUTES_MAX} older routes of its namespace are, too")
                    }
                    Parent::TooManyPatterns => format!(
                        "with older routes of its namespace it has more than {PATTERNS_MAX} regular expressions"
                    ),
                    Parent::Conflicted => {
                        "a GRPCRoute of its namespace is, too, and comes first".to_owned()
                    }
                    Parent::PartlyConflicted => {
                        "on some ports a GRPCRoute of its namespace comes first".to_owned()
                    }
                    Parent::NoAddress(why) => why.to_string(),
                    Parent::Opaque(by) => by.to_string(),
                };
                let why = format!("is attached to {service}: {why}");
                Some(self.warning(&reference, &why))
            })
            .collect();
        let services = route.services().map(|(_, service)| Some(service));
        let mut services: Vec<Option<ObjectName>> = services.collect();
        if services.is_empty() {
            services.push(None); // a Gateway's route
        }
        for backend in route.backend_refs() {
            let mut resolved =
                (services.iter()).map(|it| self.index.resolve(route, it.as_ref(), backend));
            let why = match resolved.find_map(Result::err) {
                None => continue,
                Some(Unresolved::BackendNotFound)
                    if self.is_refused(&backend.service(namespace)) =>
                {
                    continue;
                }
                Some(Unresolved::InvalidKind) => "which is no Service",
                Some(Unresolved::RefNotPermitted) => "where no ReferenceGrant lets it in",
                Some(Unresolved::BackendNotFound) => {
                    "which none of these files has, or no such port of it"
                }
                Some(Unresolved::ExternalName) => {
                    "which is of type ExternalName: no call is sent there"
                }
            };
            let why = format!("names {}, {why}", backend.title(namespace));
            told.push(self.warning(&reference, &why));
        }
        told
    }

    fn without_effect(
        &self,
        reference: &ResourceRef,
        attachments: Vec<(&TargetRef, Attachment)>,
    ) -> Vec<Diagnostic> {
        let told = attachments.into_iter().filter_map(|(target, attachment)| {
            let service = ObjectName::new(&reference.name.namespace, &target.name);
            let (kind, target) = (target.kind, &target.name);
            let why = match attachment {
                Attachment::Accepted => return None,
                Attachment::TargetNotFound if self.is_refused(&service) => return None,
                // Most pods are of Deployments and the like, which are not read.
                Attachment::TargetNotFound if kind == TargetKind::ServiceAccount => return None,
                Attachment::TargetNotFound => {
                    format!("targets {target}, which none of these files has")
                }
                Attachment::Conflicted { winner } => {
                    format!("has no effect on {target}: {winner} comes first, as the older one or by its name")
                }
                Attachment::Overridden { by } => {
                    format!("has no effect on {target}: each of its ports has its own, such as {by}")
                }
                Attachment::NotTcp => {
                    format!("has no effect on {target}: it has no TCP port there, and sidecars take nothing else")
                }
                Attachment::Opaque => {
                    format!("has no effect on {target}: its ports are opaque, and there is no call to tell from another")
                }
            };
            Some(self.warning(reference, &why))
        });
        told.collect()
    }

    /// What a policy says for callers whom it does not reach.
    fn uncalled(&self, reference: &ResourceRef, policy: &impl Targeting) -> Vec<Diagnostic> {
        let told = policy.target_refs().iter().filter_map(|target| {
            let why = self.index.no_address(&Target::of(policy, target))?;
            let why = format!("says something for callers of {}: {why}", target.name);
            Some(self.warning(reference, &why))
        });
        told.collect()
    }

    fn exceptions(&self, reference: &ResourceRef, policy: &ResiliencePolicy) -> Vec<Diagnostic> {
        let accepted = self.index.attachments(policy).into_iter();
        let accepted = accepted.filter(|(_, attachment)| *attachment == Attachment::Accepted);
        let exceptions = accepted.flat_map(|(target, _)| {
            let of = Target::of(policy, target);
            let exceptions = compile::exceptions(&self.index, policy, &of).into_iter();
            exceptions.map(|it| {
                let why = format!("does not hold everywhere in {}: {it}", target.name);
                self.warning(reference, &why)
            })
        });
        exceptions.collect()
    }

    fn missing_alternates(
        &self,
        reference: &ResourceRef,
        policy: &ResiliencePolicy,
    ) -> Vec<Diagnostic> {
        let missing = self.index.missing_alternates(policy).into_iter();
        let missing =
            missing.filter(|key| !self.is_refused(&ObjectName::new(&key.namespace, &key.name)));
        let told = missing.map(|key| {
            let why = format!("falls back on {key}, which none of these files has");
            self.warning(reference, &why)
        });
        told.collect()
    }

    /// A Service that has a mistake is not one that nobody has.
    fn is_refused(&self, service: &ObjectName) -> bool {
        self.refused.contains(&ResourceRef {
            kind: Kind::Service,
            name: service.clone(),
        })
    }

    fn warning(&self, reference: &ResourceRef, why: &str) -> Diagnostic {
        let place = &self.places[reference];
        let message = format!("{reference} {why}");
        remark(Severity::Warning, place, Some(reference), message)
    }
}

/// When the faults of a policy are over, as far as its file tells.
fn end_ms(policy: &FaultPolicy) -> Option<u64> {
    let said = policy.spec.ends_at.map(Moment::unix_millis);
    [said, compile::fault_end(policy)]
        .into_iter()
        .flatten()
        .min()
}

/// `place.line` is 0 where there is none.
fn remark(
    severity: Severity,
    place: &Place,
    resource: Option<&ResourceRef>,
    message: String,
) -> Diagnostic {
    Diagnostic {
        severity,
        message,
        file: place.file.clone(),
        at: Excerpt {
            line: place.line,
            ..Excerpt::default()
        },
        path: String::new(),
        resource: resource.map(ToString::to_string),
        secondary: None,
        help: None,
    }
}

fn count(number: usize, noun: &str) -> String {
    plural(number, noun, &format!("{noun}s"))
}

fn plural(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
