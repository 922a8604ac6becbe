//! `weir validate`: the control plane's own checks, before the control plane sees the files.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use weir_config::index::{Attachment, Index, Parent, ROUTES_MAX, Target, Unresolved};
use weir_config::resource::{GatewayRoute, ResiliencePolicy, TargetRef, Targeting};
use weir_config::{Diagnostic, Resource, ResourceRef, compile, parse};

use super::{Failure, Output, print};

/// Check files before anybody applies them; needs no control plane
///
/// Every mistake is shown with its place and what to write instead. What is not ours (Deployments, ConfigMaps) is
/// passed over. Services in the same files are used to tell a policy whose target, or what it would fall back on, does not exist.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  weir validate -f policies/ -f services.yaml
  kubectl get resiliencepolicies -A -o yaml | weir validate -f -")]
pub(super) struct Arguments {
    /// A file, a directory, or - for stdin; may be given several times
    #[arg(short, long = "filename", value_name = "PATH", required = true, num_args = 1..)]
    filename: Vec<PathBuf>,

    /// text or json: one object a diagnostic, one a line
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Default)]
struct Found {
    files: usize,
    policies: usize,
    diagnostics: Vec<Diagnostic>,
    /// Mistakes between files, which no single one has.
    between: Vec<String>,
    index: Index,
    places: HashMap<ResourceRef, String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut found = Found::default();
    for path in &arguments.filename {
        for (name, text) in read(path)? {
            found.file(&name, &text);
        }
    }
    let mut errors = found
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .count();
    for diagnostic in &found.diagnostics {
        match arguments.output {
            Output::Text => eprintln!("{diagnostic}"),
            Output::Json => print(&format!(
                "{}\n",
                serde_json::to_string(diagnostic).expect("plain data")
            ))?,
        }
    }
    for problem in &found.between {
        eprintln!("error: {problem}");
        errors += 1;
    }
    for warning in found.unattached() {
        eprintln!("warning: {warning}");
    }
    if errors > 0 {
        return Err(Failure::Failed(format!(
            "{} in {}",
            count(errors, "mistake"),
            count(found.files, "file")
        )));
    }
    let summary = format!(
        "{}, {}: fine\n",
        count(found.files, "file"),
        plural(found.policies, "policy", "policies")
    );
    match arguments.output {
        Output::Text => print(&summary),
        Output::Json => Ok(()),
    }
}

impl Found {
    fn file(&mut self, name: &str, text: &str) {
        self.files += 1;
        let located = match parse(name, text) {
            Ok(located) => located,
            Err(diagnostics) => return self.diagnostics.extend(diagnostics),
        };
        for resource in located {
            self.diagnostics.extend(resource.warnings);
            self.policies += usize::from(resource.value.kind().is_strict());
            let reference = resource.value.reference();
            if let Some(other) = self.places.insert(reference.clone(), name.to_owned()) {
                self.between.push(format!(
                    "{reference} is in {other} and in {name}: the second would be refused"
                ));
            }
            self.index.apply(resource.value);
        }
    }

    /// Policies that would have no effect. Only told when there are services to compare with.
    fn unattached(&self) -> Vec<String> {
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
    fn unattached_route<R: GatewayRoute>(&self, route: &R) -> Vec<String> {
        let (namespace, kind) = (route.metadata().namespace(), R::KIND.name());
        let reference = ResourceRef {
            kind: R::KIND,
            name: route.metadata().object_name(),
        };
        let file = self.place(&reference);
        let parents = self.index.parents(route).into_iter();
        let mut told: Vec<String> = parents
            .filter_map(|(parent, fares)| {
                let why = match fares {
                    Parent::Accepted => return None,
                    Parent::NoMatchingParent => {
                        "none of these files has it, or no such port of it".to_owned()
                    }
                    Parent::TooMany => {
                        format!("{ROUTES_MAX} older routes of its namespace are, too")
                    }
                    Parent::NoAddress(why) => why.to_string(),
                    Parent::Opaque(by) => by.to_string(),
                };
                let service = parent.service(namespace);
                Some(format!(
                    "{file}: {reference} is attached to {service}: {why}"
                ))
            })
            .collect();
        for backend in route.backend_refs() {
            let title = backend.title(namespace);
            told.extend(match self.index.resolve(backend, kind, namespace) {
                Ok(_) => None,
                Err(Unresolved::InvalidKind) => {
                    Some(format!("{file}: {reference} names {title}, which is no Service"))
                }
                Err(Unresolved::RefNotPermitted) => Some(format!(
                    "{file}: {reference} names {title}, where no ReferenceGrant lets it in"
                )),
                Err(Unresolved::BackendNotFound) => Some(format!(
                    "{file}: {reference} names {title}, which none of these files has, or no such port of it"
                )),
                Err(Unresolved::ExternalName) => Some(format!(
                    "{file}: {reference} names {title}, which is of type ExternalName: no call is sent there"
                )),
            });
        }
        told
    }

    fn without_effect(
        &self,
        reference: &ResourceRef,
        attachments: Vec<(&TargetRef, Attachment)>,
    ) -> Vec<String> {
        let file = self.place(reference);
        let told = attachments.into_iter().filter_map(|(target, attachment)| {
            let target = &target.name;
            let why = match attachment {
                Attachment::Accepted => return None,
                Attachment::TargetNotFound => {
                    format!("targets {target}, which none of these files has")
                }
                Attachment::Conflicted { winner } => {
                    format!("has no effect on {target}: {winner} comes first, as the older one or by its name")
                }
                Attachment::Overridden { by } => {
                    format!("has no effect on {target}: each of its ports has its own, such as {by}")
                }
                Attachment::Opaque => {
                    format!("has no effect on {target}: its ports are opaque, and there is no call to tell from another")
                }
            };
            Some(format!("{file}: {reference} {why}"))
        });
        told.collect()
    }

    /// What a policy says for callers whom it does not reach.
    fn uncalled(&self, reference: &ResourceRef, policy: &impl Targeting) -> Vec<String> {
        let file = self.place(reference);
        let told = policy.target_refs().iter().filter_map(|target| {
            let why = self.index.no_address(&Target::of(policy, target))?;
            let target = &target.name;
            Some(format!(
                "{file}: {reference} says something for callers of {target}: {why}"
            ))
        });
        told.collect()
    }

    fn exceptions(&self, reference: &ResourceRef, policy: &ResiliencePolicy) -> Vec<String> {
        let file = self.place(reference);
        let accepted = self.index.attachments(policy).into_iter();
        let accepted = accepted.filter(|(_, attachment)| *attachment == Attachment::Accepted);
        let exceptions = accepted.flat_map(|(target, _)| {
            let of = Target::of(policy, target);
            let exceptions = compile::exceptions(&self.index, policy, &of).into_iter();
            exceptions.map(|it| {
                let target = &target.name;
                format!("{file}: {reference} does not hold everywhere in {target}: {it}")
            })
        });
        exceptions.collect()
    }

    fn missing_alternates(
        &self,
        reference: &ResourceRef,
        policy: &ResiliencePolicy,
    ) -> Vec<String> {
        let file = self.place(reference);
        let missing = self.index.missing_alternates(policy).into_iter();
        missing
            .map(|key| {
                format!("{file}: {reference} falls back on {key}, which none of these files has")
            })
            .collect()
    }

    fn place(&self, reference: &ResourceRef) -> &str {
        let place = self.places.get(reference);
        place.map(String::as_str).unwrap_or_default()
    }
}

/// Name and text of a file, or of every YAML file below a directory.
fn read(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let fail = |error: std::io::Error| Failure::Failed(format!("{}: {error}", path.display()));
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(fail)?;
        return Ok(vec![("<stdin>".to_owned(), text)]);
    }
    let metadata = std::fs::metadata(path).map_err(fail)?;
    if !metadata.is_dir() {
        return Ok(vec![(
            path.display().to_string(),
            std::fs::read_to_string(path).map_err(fail)?,
        )]);
    }
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        entries.push(entry.map_err(fail)?.path());
    }
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        let hidden = entry
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = entry
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if !hidden && (yaml || entry.is_dir()) {
            files.extend(read(&entry)?);
        }
    }
    Ok(files)
}

fn count(number: usize, noun: &str) -> String {
    plural(number, noun, &format!("{noun}s"))
}

fn plural(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
