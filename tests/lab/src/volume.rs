//! A pod's volumes as directories: empty ones, files from config maps, the identity of the mesh.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::environment::References;
use crate::error::{Doing, Error, Result};
use crate::manifest::Manifests;
use crate::spec::{FilesSource, Volume};

/// The ConfigMap in which a cluster publishes the mesh's certificates.
const TRUST_BUNDLE: &str = "weir-trust-bundle";

/// What the mesh gives a pod to prove itself with.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    pub token: String,
    /// PEM, as the control plane wrote it.
    pub trust_bundle: String,
}

pub struct VolumeMaker<'a> {
    pub references: References<'a>,
    pub identity: &'a Identity,
    /// One directory per volume is made in here.
    pub folder: &'a Path,
}

/// Whether a volume shows the mesh's certificates, and so has to follow their rotation.
pub fn shows_trust_bundle(volume: &Volume) -> bool {
    let named = |source: &Option<FilesSource>| {
        source
            .as_ref()
            .is_some_and(|source| source.name == TRUST_BUNDLE)
    };
    let sources = volume
        .projected
        .iter()
        .flat_map(|projected| &projected.sources);
    named(&volume.config_map) || sources.into_iter().any(|source| named(&source.config_map))
}

impl VolumeMaker<'_> {
    /// The directory that stands for this volume.
    pub fn make(&self, volume: &Volume) -> Result<PathBuf> {
        if let Some(host) = &volume.host_path {
            return Ok(PathBuf::from(&host.path));
        }
        let folder = self.folder.join(&volume.name);
        fs::create_dir_all(&folder).doing(|| format!("create {}", folder.display()))?;
        let Some(files) = self.files(volume).map_err(|why| self.wrong(volume, &why))? else {
            // Whoever runs as whichever user may write to an empty directory.
            let everyone = fs::Permissions::from_mode(0o777);
            fs::set_permissions(&folder, everyone)
                .doing(|| format!("open up {}", folder.display()))?;
            return Ok(folder);
        };
        for (name, content) in files {
            if name.split('/').any(|part| part == "..") || name.starts_with('/') {
                return Err(self.wrong(volume, &format!("file name {name} leads out of it")));
            }
            let path = folder.join(name);
            let parent = path.parent().expect("a file in a folder");
            fs::create_dir_all(parent).doing(|| format!("create {}", parent.display()))?;
            // Who reads it while it is renewed sees the old content or the new one.
            let fresh = path.with_added_extension("new");
            fs::write(&fresh, content).doing(|| format!("write {}", fresh.display()))?;
            fs::rename(&fresh, &path).doing(|| format!("replace {}", path.display()))?;
        }
        Ok(folder)
    }

    fn wrong(&self, volume: &Volume, why: &str) -> Error {
        Error::Request(format!("volume {}: {why}", volume.name))
    }

    /// `None` for a volume that starts empty.
    fn files(&self, volume: &Volume) -> Result<Option<Vec<(String, String)>>, String> {
        if let Some(source) = &volume.config_map {
            return self.config_map(source).map(Some);
        }
        if let Some(source) = &volume.secret {
            return self.secret(source).map(Some);
        }
        if let Some(source) = &volume.downward_api {
            return self.downward(source).map(Some);
        }
        let Some(projected) = &volume.projected else {
            return Ok(None);
        };
        let mut files = Vec::new();
        for source in &projected.sources {
            if let Some(token) = &source.service_account_token {
                files.push((token.path.clone(), self.identity.token.clone()));
            }
            if let Some(source) = &source.config_map {
                files.extend(self.config_map(source)?);
            }
            if let Some(source) = &source.secret {
                files.extend(self.secret(source)?);
            }
            if let Some(source) = &source.downward_api {
                files.extend(self.downward(source)?);
            }
        }
        Ok(Some(files))
    }

    fn config_map(&self, source: &FilesSource) -> Result<Vec<(String, String)>, String> {
        let manifests: &Manifests = self.references.manifests;
        let key = (self.references.namespace.to_owned(), source.name.clone());
        match manifests.config_maps.get(&key) {
            Some(data) => select(data.iter(), source),
            None if source.name == TRUST_BUNDLE => {
                let bundle = ("ca.crt".to_owned(), self.identity.trust_bundle.clone());
                select([(&bundle.0, &bundle.1)].into_iter(), source)
            }
            None if source.optional => Ok(Vec::new()),
            None => Err(format!("ConfigMap {} does not exist", source.name)),
        }
    }

    fn secret(&self, source: &FilesSource) -> Result<Vec<(String, String)>, String> {
        let key = (self.references.namespace.to_owned(), source.name.clone());
        match self.references.manifests.secrets.get(&key) {
            Some(data) => select(data.iter(), source),
            None if source.optional => Ok(Vec::new()),
            None => Err(format!("Secret {} does not exist", source.name)),
        }
    }

    fn downward(&self, source: &FilesSource) -> Result<Vec<(String, String)>, String> {
        let items = source.items.iter();
        items
            .map(|item| {
                let field = item.field_ref.as_ref().ok_or("an item without fieldRef")?;
                Ok((item.path.clone(), self.references.field(&field.field_path)?))
            })
            .collect()
    }
}

/// All entries, or those that `items` names, under the paths it gives them.
fn select<'a>(
    data: impl Iterator<Item = (&'a String, &'a String)> + Clone,
    source: &FilesSource,
) -> Result<Vec<(String, String)>, String> {
    if source.items.is_empty() {
        return Ok(data
            .map(|(name, content)| (name.clone(), content.clone()))
            .collect());
    }
    let items = source.items.iter();
    items
        .map(|item| {
            let content = data.clone().find(|(name, _)| **name == item.key);
            let (_, content) = content.ok_or(format!("{} has no {}", source.name, item.key))?;
            Ok((item.path.clone(), content.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn make(volume: serde_json::Value, folder: &Path) -> Result<PathBuf> {
        let pod = json!({"metadata": {"name": "cart-0"}});
        let maker = VolumeMaker {
            references: References {
                pod: &pod,
                namespace: "shop",
                manifests: &Manifests::default(),
            },
            identity: &Identity {
                token: "secret".into(),
                trust_bundle: "PEM".into(),
            },
            folder,
        };
        maker.make(&serde_json::from_value(volume).unwrap())
    }

    #[test]
    fn the_identity_volume_of_the_injector_holds_the_token_and_the_trust_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let volume = make(
            json!({"name": "weir-identity", "projected": {"sources": [
                {"serviceAccountToken": {"audience": "weir.dev", "path": "token"}},
                {"configMap": {"name": "weir-trust-bundle", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "pod/name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            ]}}),
            folder.path(),
        )
        .unwrap();
        let read = |name| fs::read_to_string(volume.join(name)).unwrap();
        assert_eq!(
            (read("token"), read("ca.crt"), read("pod/name")),
            ("secret".into(), "PEM".into(), "cart-0".into())
        );
    }

    #[test]
    fn a_file_cannot_leave_its_volume() {
        let folder = tempfile::tempdir().unwrap();
        let error = make(
            json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "../token"}}]}}),
            folder.path(),
        )
        .unwrap_err();
        assert!(error.to_string().contains("leads out"), "{error}");
    }

    #[test]
    fn a_volume_of_a_config_map_that_is_not_there_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let error = make(
            json!({"name": "v", "configMap": {"name": "knobs"}}),
            folder.path(),
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            "volume v: ConfigMap knobs does not exist"
        );
    }
}
