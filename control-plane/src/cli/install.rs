//! `weir install` and `weir uninstall`: the chart's objects for those who have kubectl and no Helm.
//!
//! There is one description of them, the chart's templates, which are in this binary. A test holds what comes out
//! against what Helm makes of them.

mod expression;
mod set;
mod template;
mod values;

use std::path::PathBuf;

use serde_json::{Value, json};

use self::set::Typing;
use self::template::Templates;
use super::{Failure, crds, print};
use crate::spiffe;

macro_rules! chart {
    ($file:literal) => {
        ($file, include_str!(concat!("../../../charts/weir/", $file)))
    };
}

const VALUES: &str = include_str!("../../../charts/weir/values.yaml");
const VALUES_HA: &str = include_str!("../../../charts/weir/values-ha.yaml");
const SCHEMA: &str = include_str!("../../../charts/weir/values.schema.json");
const LABELS: &str = include_str!("../../../charts/weir/templates/_labels.tpl");

/// The most that an installation may have made, whatever it was asked for.
const ALL_THERE_MAY_BE: [(&str, &str); 2] = [("values-ha.yaml", VALUES_HA), ("--cni", CNI)];
const CNI: &str = "cni: {enabled: true}";

/// In the order in which they must be made.
const TEMPLATES: [(&str, &str); 9] = [
    chart!("templates/namespace.yaml"),
    // Before the pods that it lets be.
    chart!("templates/critical-pods.yaml"),
    chart!("templates/service-account.yaml"),
    chart!("templates/rbac.yaml"),
    chart!("templates/service.yaml"),
    chart!("templates/deployment.yaml"),
    chart!("templates/disruption-budget.yaml"),
    // Nodes have the plugin before any pod counts on it.
    chart!("templates/cni.yaml"),
    chart!("templates/webhooks.yaml"),
];

/// Print what a cluster needs for Weir: CRDs, control plane, webhooks; changes nothing itself
///
/// The same objects as the charts weir-crds and weir make. The values are the chart's, and so are their names.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  weir install | kubectl apply --server-side -f -
  weir install --ha --set trustDomain=prod.example | kubectl apply --server-side -f -
  weir install --cni | kubectl apply --server-side -f -      where pods may not have NET_ADMIN
  weir install --values mine.yaml | kubectl diff -f -
  weir install --show-values               what may be chosen, and what it is for")]
pub(super) struct Install {
    #[command(flatten)]
    release: Release,

    /// Print the chart's values with their comments instead
    #[arg(long)]
    show_values: bool,

    /// Leave the CRDs out, because weir crds or the chart weir-crds has installed them
    #[arg(long)]
    without_crds: bool,
}

/// Print what `weir install` made, for kubectl delete; deletes nothing itself
///
/// It is all that an installation may have made, with --ha and --cni too, so that nothing is forgotten: kubectl passes over
/// what is not there. Of the values only those that give a name or a place matter, such as cni.namespace.
///
/// Pods keep their sidecars until they are started anew, and go on by what they were told last. The CA goes with the
/// namespace, in the Secret weir-ca: the sidecars' certificates are not renewed, until another installation makes another.
/// Policies stay, unless the CRDs go too.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  weir uninstall | kubectl delete --ignore-not-found -f -
  weir uninstall --with-crds | kubectl delete --ignore-not-found -f -      every policy goes with them")]
pub(super) struct Uninstall {
    #[command(flatten)]
    release: Release,

    /// The CRDs, too: Kubernetes then deletes every policy in the cluster
    #[arg(long)]
    with_crds: bool,
}

#[derive(clap::Args)]
struct Release {
    /// Namespace of the control plane
    #[arg(short, long, value_name = "NAME", default_value = "weir-system", value_parser = namespace)]
    namespace: String,

    /// Two replicas that take turns, spread over nodes and zones (the chart's values-ha.yaml)
    #[arg(long)]
    ha: bool,

    /// No pod needs NET_ADMIN: a CNI plugin on every node writes the rules (the chart's cni.enabled)
    #[arg(long)]
    cni: bool,

    /// A YAML file of values; may be given several times, later ones win
    #[arg(short = 'f', long, value_name = "FILE")]
    values: Vec<PathBuf>,

    /// Values, as in --set webhook.failurePolicy=Ignore,replicas=2; may be given several times. As Helm reads it:
    /// \. and \, for a dot and a comma, {a,b} for a list, a[0].b=c for a place in one
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,

    /// The same, and every value is a text, whatever it looks like: --set-string image.tag=7
    #[arg(long, value_name = "PATH=TEXT")]
    set_string: Vec<String>,
}

fn namespace(text: &str) -> Result<String, String> {
    match spiffe::is_name(text) && !text.contains('.') && text.len() <= 63 {
        true => Ok(text.to_owned()),
        false => Err(
            "expected at most 63 of a-z, 0-9 and -, a letter or digit first and last".to_owned(),
        ),
    }
}

pub(super) fn install(arguments: &Install) -> Result<(), Failure> {
    if arguments.show_values {
        return print(VALUES);
    }
    let mut text = String::new();
    if !arguments.without_crds {
        text.push_str(&crds::text());
    }
    for (_, rendered) in arguments.release.render(&[])? {
        push(&mut text, &rendered);
    }
    print(&text)
}

pub(super) fn uninstall(arguments: &Uninstall) -> Result<(), Failure> {
    let mut text = String::new();
    // The webhooks first: with nobody behind them no pod could start.
    let all = arguments.release.render(&ALL_THERE_MAY_BE)?;
    for (_, rendered) in all.into_iter().rev() {
        push(&mut text, &rendered);
    }
    if arguments.with_crds {
        text.push_str(&crds::text());
    }
    print(&text)?;
    let namespace = &arguments.release.namespace;
    eprintln!(
        "# The CA goes with namespace {namespace}. Sidecars that still run go on until their certificates run out. Another \
         installation makes a CA of its own: they find it in the ConfigMap of their namespace within minutes, or when their \
         pods start anew, and until all have, some calls between them may fail. With the same CA none do: keep the Secret \
         weir-ca, and make it again before the next installation:\n#   kubectl -n {namespace} get secret weir-ca -o yaml"
    );
    eprintln!(
        "# Left behind: the certificates that sidecars trust, one ConfigMap in each namespace of the mesh. When no pod \
         has a sidecar any more:\n#   kubectl delete configmap -A --field-selector metadata.name=weir-trust-bundle"
    );
    Ok(())
}

impl Release {
    /// Name and text of every object that there is with these values, over those `under` them.
    fn render(&self, under: &[(&str, &str)]) -> Result<Vec<(&'static str, String)>, Failure> {
        let scope = json!({
            "Values": self.values(under)?,
            "Release": { "Name": "weir", "Namespace": self.namespace, "Service": "weir" },
            "Chart": { "AppVersion": env!("CARGO_PKG_VERSION") },
        });
        let templates = Templates::read(LABELS).map_err(Failure::Failed)?;
        let mut rendered = Vec::new();
        for (name, text) in TEMPLATES {
            let text = templates
                .render(text, &scope)
                .map_err(|error| Failure::Failed(format!("charts/weir/{name}: {error}")))?;
            if !text.trim().is_empty() {
                rendered.push((name, text));
            }
        }
        Ok(rendered)
    }

    fn values(&self, under: &[(&str, &str)]) -> Result<Value, Failure> {
        let mut layers = vec![(
            "weir".to_owned(),
            // kubectl makes no namespace that nobody describes.
            "createNamespace: true".to_owned(),
        )];
        let named = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        layers.extend(under.iter().map(named));
        if self.ha {
            layers.push(("values-ha.yaml".to_owned(), VALUES_HA.to_owned()));
        }
        if self.cni {
            layers.push(("--cni".to_owned(), CNI.to_owned()));
        }
        for file in &self.values {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::Failed(format!("{name}: {error}")))?;
            layers.push((name, text));
        }
        let typed = self.set.iter().map(|set| (set.as_str(), Typing::Guessed));
        let texts = self
            .set_string
            .iter()
            .map(|set| (set.as_str(), Typing::Text));
        let sets: Vec<_> = typed.chain(texts).collect();
        values::merged(VALUES, SCHEMA, &layers, &sets).map_err(Failure::Usage)
    }
}

fn push(text: &mut String, rendered: &str) {
    let rendered = rendered.trim();
    if !rendered.starts_with("---") {
        text.push_str("---\n");
    }
    text.push_str(rendered);
    text.push('\n');
}
