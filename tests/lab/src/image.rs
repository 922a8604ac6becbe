//! Which folder of programs stands for a container image, on a machine without images.
//!
//! A mapping is a prefix of image names and a folder: `weir-boutique/=demo-boutique/` makes
//! `weir-boutique/cart:dev` the folder `demo-boutique/cart`, and `redis=demo-boutique/redis`
//! stands for one image. The folder has an executable `run`. An image without a folder runs its
//! `command` with the programs of this machine.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::spec::ContainerSpec;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    pub prefix: String,
    pub folder: PathBuf,
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (prefix, folder) = text
            .split_once('=')
            .filter(|(prefix, folder)| !prefix.is_empty() && !folder.is_empty())
            .ok_or_else(|| format!("`{text}` is not IMAGE=FOLDER or PREFIX/=FOLDER/"))?;
        Ok(Self {
            prefix: prefix.to_owned(),
            folder: folder.into(),
        })
    }
}

/// What to run for a container, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub argv: Vec<String>,
    pub folder: Option<PathBuf>,
}

/// The mappings of the demo shop in this folder; none when it is not there.
pub fn boutique(folder: &Path) -> Vec<Mapping> {
    let mapping = |prefix: &str, folder: PathBuf| Mapping {
        prefix: prefix.to_owned(),
        folder,
    };
    if !folder.is_dir() {
        return Vec::new();
    }
    vec![
        mapping("weir-boutique/", folder.to_path_buf()),
        mapping("redis", folder.join("redis")),
    ]
}

/// The folder for an image, by the longest mapping that fits.
pub fn folder(image: &str, mappings: &[Mapping]) -> Option<PathBuf> {
    let name = without_tag(image);
    mappings
        .iter()
        .filter_map(|mapping| {
            let rest = name.strip_prefix(mapping.prefix.as_str())?;
            let found = match (mapping.prefix.ends_with('/'), rest) {
                (false, "") => mapping.folder.clone(),
                // A name must not lead out of the folder.
                (true, rest) if !rest.is_empty() && !rest.contains("..") => {
                    mapping.folder.join(rest)
                }
                _ => return None,
            };
            Some((mapping.prefix.len(), found))
        })
        .max_by_key(|(length, _)| *length)
        .map(|(_, folder)| folder)
}

/// `registry:5000/shop/cart:dev@sha256:…` → `registry:5000/shop/cart`.
fn without_tag(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    let last = image.rfind('/').map_or(0, |slash| slash + 1);
    match image[last..].find(':') {
        Some(colon) => &image[..last + colon],
        None => image,
    }
}

/// The words to execute. `weir-init` and `weir-proxy` are known by the names the injector gives
/// them, the control plane by the name the lab gives it: they are our own binaries.
pub fn entry(
    container: &ContainerSpec,
    mappings: &[Mapping],
    bin_dir: &Path,
) -> Result<Entry, String> {
    let own = |binary: &str, before: &[&str]| {
        let written = container.command.iter().skip(1).chain(&container.args);
        let mut argv = vec![bin_dir.join(binary).display().to_string()];
        argv.extend(before.iter().map(|word| (*word).to_owned()));
        argv.extend(
            written
                .skip_while(|word| before.contains(&word.as_str()))
                .cloned(),
        );
        Ok(Entry { argv, folder: None })
    };
    match container.name.as_str() {
        "weir-init" => return own("weir-proxy", &["init"]),
        "weir-validate" => return own("weir-proxy", &["validate"]),
        "weir-proxy" => return own("weir-proxy", &[]),
        "weir-control-plane" => return own("weir-control-plane", &[]),
        _ => {}
    }
    let folder = folder(&container.image, mappings);
    let mut argv = match (&folder, container.command.is_empty()) {
        (_, false) => container.command.clone(),
        (Some(folder), true) => vec![folder.join("run").display().to_string()],
        (None, true) => {
            return Err(format!(
                "image {} has no folder here and the container no command; map it with --images IMAGE=FOLDER",
                container.image
            ));
        }
    };
    argv.extend(container.args.iter().cloned());
    Ok(Entry { argv, folder })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifests;

    fn mappings() -> Vec<Mapping> {
        [
            "weir-boutique/=shop/",
            "redis=shop/redis",
            "weir-boutique/cart=mine",
        ]
        .map(|text| text.parse().unwrap())
        .into()
    }

    #[test]
    fn the_longest_prefix_of_an_image_name_wins_whatever_its_tag() {
        let at = |image| folder(image, &mappings()).map(|f| f.display().to_string());
        assert_eq!(
            at("weir-boutique/catalog:dev").as_deref(),
            Some("shop/catalog")
        );
        assert_eq!(
            at("weir-boutique/cart:dev@sha256:0").as_deref(),
            Some("mine")
        );
        assert_eq!(at("redis:7").as_deref(), Some("shop/redis"));
        assert_eq!(at("redis-stack:7"), None);
        assert_eq!(at("localhost:5000/redis"), None);
        assert_eq!(at("weir-boutique/../../etc"), None);
    }

    fn argv(json: serde_json::Value) -> Result<Vec<String>, String> {
        let container = serde_json::from_value(json).unwrap();
        entry(&container, &mappings(), Path::new("bin")).map(|entry| entry.argv)
    }

    #[test]
    fn our_own_containers_run_our_own_binaries_with_the_arguments_of_the_patch() {
        let init = serde_json::json!({"name": "weir-init", "command": ["/weir-proxy", "init"], "args": ["--proxy-uid", "14102"]});
        assert_eq!(
            argv(init).unwrap(),
            ["bin/weir-proxy", "init", "--proxy-uid", "14102"]
        );
        let init = serde_json::json!({"name": "weir-init", "args": ["init", "--print"]});
        assert_eq!(argv(init).unwrap(), ["bin/weir-proxy", "init", "--print"]);
    }

    #[test]
    fn a_command_overrides_the_run_script_and_an_image_without_either_is_refused() {
        let run = serde_json::json!({"name": "redis", "image": "redis:7", "args": ["--port", "1"]});
        assert_eq!(argv(run).unwrap(), ["shop/redis/run", "--port", "1"]);
        let command =
            serde_json::json!({"name": "a", "image": "redis:7", "command": ["sleep", "1"]});
        assert_eq!(argv(command).unwrap(), ["sleep", "1"]);
        let neither = serde_json::json!({"name": "a", "image": "nginx"});
        assert!(argv(neither).unwrap_err().contains("--images"));
    }

    /// With those of its image it would save to a disk that is read-only, refuse all writes when it could not, and grow
    /// until it is killed.
    #[test]
    fn redis_has_the_settings_on_a_cluster_that_it_has_here() {
        let shop = crate::build::root().join("demo-boutique");
        let manifests = Manifests::read(&[shop.join("k8s/redis.yaml")]).unwrap();
        let container = &manifests.workloads[0].template["spec"]["containers"][0];
        let container: ContainerSpec = serde_json::from_value(container.clone()).unwrap();
        assert!(
            container.command.is_empty(),
            "the image's own takes settings"
        );
        let settings = container.args;
        let has = |name: &str, value: &str| settings.windows(2).any(|two| two == [name, value]);
        assert!(
            has("--save", "") && has("--appendonly", "no"),
            "{settings:?}"
        );
        assert!(has("--maxmemory", "32mb"), "{settings:?}");

        let script = std::fs::read_to_string(shop.join("redis/run")).unwrap();
        let words: Vec<&str> = script
            .split_whitespace()
            .filter(|word| *word != "\\")
            .map(|word| word.trim_matches(['\'', '"']))
            .collect();
        assert!(
            words.windows(settings.len()).any(|some| some == settings),
            "{settings:?} are not those of redis/run"
        );
        assert_eq!(words.last(), Some(&"$@"), "what a container is given");
    }
}
