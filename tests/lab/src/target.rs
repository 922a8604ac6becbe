//! How a person names pods: `catalog` (all its replicas), `catalog/1`, `catalog-1`, or with a
//! namespace in front, `shop/catalog`, `shop/catalog/1`.

/// What a name can be matched against.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    pub namespace: &'a str,
    pub workload: &'a str,
    pub ordinal: u32,
    pub pod: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    namespace: Option<String>,
    name: String,
    ordinal: Option<u32>,
}

impl Target {
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (namespace, name, ordinal) = match parts[..] {
            [name] => (None, name, None),
            [first, second] => match second.parse() {
                Ok(ordinal) => (None, first, Some(ordinal)),
                Err(_) => (Some(first), second, None),
            },
            [namespace, name, ordinal] => {
                let ordinal = ordinal.parse().map_err(|_| wrong(text))?;
                (Some(namespace), name, Some(ordinal))
            }
            _ => return Err(wrong(text)),
        };
        if name.is_empty() || namespace == Some("") {
            return Err(wrong(text));
        }
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            ordinal,
        })
    }

    pub fn matches(&self, pod: Name<'_>) -> bool {
        let namespace = self.namespace.as_deref();
        if namespace.is_some_and(|namespace| namespace != pod.namespace) {
            return false;
        }
        match self.ordinal {
            Some(ordinal) => self.name == pod.workload && ordinal == pod.ordinal,
            None => self.name == pod.workload || self.name == pod.pod,
        }
    }

    /// Whether this names a workload (and not a replica of one).
    pub fn matches_workload(&self, namespace: &str, workload: &str) -> bool {
        let own = self.namespace.as_deref();
        own.is_none_or(|own| own == namespace) && self.name == workload && self.ordinal.is_none()
    }
}

fn wrong(text: &str) -> String {
    format!("`{text}` names no pod: write WORKLOAD, WORKLOAD/N or NAMESPACE/WORKLOAD/N")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CATALOG_1: Name<'_> = Name {
        namespace: "shop",
        workload: "catalog",
        ordinal: 1,
        pod: "catalog-1",
    };

    #[test]
    fn a_pod_answers_to_its_workload_its_number_its_name_and_its_namespace() {
        for text in [
            "catalog",
            "catalog/1",
            "catalog-1",
            "shop/catalog",
            "shop/catalog/1",
            "shop/catalog-1",
        ] {
            assert!(Target::parse(text).unwrap().matches(CATALOG_1), "{text}");
        }
        for text in [
            "cart",
            "catalog/0",
            "catalog-0",
            "other/catalog",
            "other/catalog/1",
        ] {
            assert!(!Target::parse(text).unwrap().matches(CATALOG_1), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        for text in ["", "/1", "a/b/c", "a/b/1/2"] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
