//! The CRDs in the chart are what the types say, and everything in them has a type and an end.

use std::path::Path;

use serde_json::Value;
use weir_config::crd::{self, rules};
use weir_config::schema;

#[test]
fn the_charts_crds_are_what_the_types_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/weir-crds/templates");
    let mut names = vec!["NOTES.txt".to_owned()];
    for kind in schema::KINDS {
        let name = format!("{}.yaml", crd::plural(kind));
        let definition = crd::definition(kind).expect("one of ours");
        let fresh = serde_saphyr::to_string(&definition).expect("plain data");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(folder.join(&name), &fresh).expect("the committed file is written");
        }
        let committed = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(
            committed == fresh,
            "charts/weir-crds/templates/{name} is stale: run UPDATE=1 cargo test -p weir-config --test crds"
        );
        assert!(
            !fresh.contains("{{"),
            "Helm would read {name} as a template"
        );
        names.push(name);
    }
    names.sort();
    let mut there: Vec<String> = std::fs::read_dir(&folder)
        .expect("the chart's folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    there.sort();
    assert_eq!(there, names, "a file of a kind that is none");
}

#[test]
fn every_value_has_one_type_and_an_end() {
    let mut seen = 0;
    each_schema(&mut |at, schema| {
        seen += 1;
        let kind = schema["type"].as_str();
        let kind = kind.unwrap_or_else(|| panic!("{at}: not one type: {schema}"));
        let has = |keyword: &str| schema.get(keyword).is_some();
        match kind {
            "string" => assert!(has("enum") || has("maxLength"), "{at} has no end"),
            "array" => {
                assert!(has("maxItems") && has("items"), "{at} has no end");
                assert!(has("x-kubernetes-list-type"), "{at}: how is it merged?");
            }
            "object" => assert!(has("properties") || has("maxProperties"), "{at} has no end"),
            _ => {}
        }
        for keyword in ["$ref", "anyOf", "oneOf", "const", "default"] {
            let is_said = has(keyword);
            // What is left out comes from the next less specific place: a default of the API server would hide it.
            assert!(!is_said, "{at} says {keyword}");
        }
    });
    assert!(seen > 200, "only {seen} were looked at");
}

#[test]
fn every_rule_stands_in_a_definition_at_a_field_that_is_there() {
    let mut standing = Vec::new();
    each_schema(&mut |at, schema| {
        for rule in schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
        {
            if let Some(field) = rule["fieldPath"].as_str() {
                let pointer = field.replace('.', "/properties/");
                assert!(schema.pointer(&pointer).is_some(), "{at} has no {field}");
            }
            standing.push(rule["rule"].clone());
        }
    });
    for rule in rules::all() {
        let on = rule.on;
        assert!(
            standing.contains(&Value::from(rule.holds)),
            "no definition has a {on}"
        );
    }
}

fn each_schema(look: &mut dyn FnMut(&str, &Value)) {
    for definition in crd::all() {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            walk(part, &schema[part], look);
        }
    }
}

fn walk(at: &str, schema: &Value, look: &mut dyn FnMut(&str, &Value)) {
    look(at, schema);
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{at}.{name}"), inner, look);
    }
    if let Some(items) = schema.get("items") {
        walk(&format!("{at}[]"), items, look);
    }
}
