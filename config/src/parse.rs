//! From the text of a file to resources, or to everything that is wrong with it.

use std::ops::Deref;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Excerpt, Severity};
use crate::resource::{Kind, Resource, ResourceRef};

/// A value and where it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Located<T> {
    pub value: T,
    pub file: Arc<str>,
    /// Of the document's first line, from 1.
    pub line: usize,
    /// What is allowed but surely not meant.
    pub warnings: Vec<Diagnostic>,
}

/// A file read as far as it can be: one bad document does not take the good ones with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    pub resources: Vec<Located<Resource>>,
    /// In the order of the file.
    pub errors: Vec<Diagnostic>,
    /// Documents that were refused, as far as they say who they are: for these the last good one stays in force.
    pub refused: Vec<ResourceRef>,
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Every resource of the file that we have a use for, or every mistake in it. Documents of kinds that we do not
/// read (Deployment, Namespace, …) are passed over.
pub fn parse(file_name: &str, text: &str) -> Result<Vec<Located<Resource>>, Vec<Diagnostic>> {
    let reading = read(file_name, text);
    if reading.errors.is_empty() {
        Ok(reading.resources)
    } else {
        Err(reading.errors)
    }
}

/// The same, document by document: what is good is returned beside what is wrong with the rest.
pub fn read(file_name: &str, text: &str) -> Reading {
    let mut reading = Reading::default();
    let file: Arc<str> = file_name.into();
    let documents: Vec<serde_json::Value> = match serde_saphyr::from_multiple(text) {
        Ok(documents) => documents,
        Err(error) => {
            reading.errors.push(plain(file_name, error.to_string()));
            return reading;
        }
    };
    for mut document in documents {
        let api = document["apiVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let name = document["kind"].as_str().unwrap_or_default().to_owned();
        let Some(kind) =
            (Kind::ALL.into_iter()).find(|kind| kind.name() == name && kind.api_version() == api)
        else {
            continue;
        };
        if let Some(map) = document.as_object_mut() {
            map.remove("apiVersion");
            map.remove("kind");
        }
        let resource = match kind {
            Kind::Service => serde_json::from_value(document).map(Resource::Service),
            Kind::EndpointSlice => serde_json::from_value(document).map(Resource::EndpointSlice),
            Kind::Pod => serde_json::from_value(document).map(Resource::Pod),
            Kind::ResiliencePolicy => {
                serde_json::from_value(document).map(Resource::ResiliencePolicy)
            }
            Kind::MeshConfig => serde_json::from_value(document).map(Resource::MeshConfig),
        };
        match resource {
            Ok(value) => reading.resources.push(Located {
                value,
                file: file.clone(),
                line: 1,
                warnings: Vec::new(),
            }),
            Err(error) => reading.errors.push(plain(file_name, error.to_string())),
        }
    }
    reading
}

fn plain(file: &str, message: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        message,
        file: file.to_owned(),
        at: Excerpt::default(),
        path: String::new(),
        resource: None,
        secondary: None,
        help: None,
    }
}
