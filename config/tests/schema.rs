//! The committed JSON Schemas are what the types say, and have no way around them.

use std::path::Path;

use serde_json::Value;
use weir_config::{Kind, schema};

#[test]
fn the_committed_schemas_match_the_types() {
    for kind in schema::KINDS {
        let fresh = format!("{:#}\n", schema::json_schema(kind).expect("one of ours"));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schema/{kind}.json"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
            std::fs::write(&path, &fresh).expect("the committed file is written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == fresh,
            "config/schema/{kind}.json is stale: run UPDATE=1 cargo test -p weir-config --test schema"
        );
    }
}

#[test]
fn kinds_of_kubernetes_have_no_schema_of_ours() {
    assert_eq!(schema::json_schema(Kind::Pod), None);
}

/// kubectl and API servers rewrite these words without a word.
#[test]
fn no_field_and_no_value_is_a_boolean_to_yaml_1_1() {
    for kind in schema::KINDS {
        let schema = schema::json_schema(kind).expect("one of ours");
        let mut words = Vec::new();
        collect_words(&schema, &mut words);
        assert!(
            words.iter().any(|word| word == "spec"),
            "the walk finds names: {words:?}"
        );
        for word in words {
            let flat = word.to_ascii_lowercase();
            assert!(
                !["y", "n", "yes", "no", "on", "off", "true", "false"].contains(&flat.as_str()),
                "{kind} has the word {word:?}"
            );
        }
    }
}

/// Every object is closed and every list bounded: what is not known is refused, what is endless too.
#[test]
fn every_map_is_closed_and_every_list_has_an_end() {
    for kind in schema::KINDS {
        let schema = schema::json_schema(kind).expect("one of ours");
        check_closed(&schema["properties"]["spec"], "spec");
        for (name, definition) in schema["$defs"].as_object().expect("definitions") {
            check_closed(definition, name);
        }
    }
}

fn check_closed(schema: &Value, at: &str) {
    match schema {
        Value::Object(fields) => {
            if fields.get("properties").is_some() {
                assert_eq!(
                    fields.get("additionalProperties"),
                    Some(&Value::Bool(false)),
                    "{at} is open"
                );
            }
            if type_is(fields.get("type"), "array") {
                assert!(fields.contains_key("maxItems"), "{at} has no maxItems");
            }
            for (name, inner) in fields {
                check_closed(inner, &format!("{at}.{name}"));
            }
        }
        Value::Array(items) => items.iter().for_each(|item| check_closed(item, at)),
        _ => {}
    }
}

fn type_is(said: Option<&Value>, wanted: &str) -> bool {
    match said {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(several)) => several.iter().any(|one| one == wanted),
        _ => false,
    }
}

fn collect_words(schema: &Value, words: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Object(properties)) = fields.get("properties") {
                words.extend(properties.keys().cloned());
            }
            for key in ["enum", "const"] {
                match fields.get(key) {
                    Some(Value::String(word)) => words.push(word.clone()),
                    Some(Value::Array(several)) => {
                        words.extend(
                            several
                                .iter()
                                .filter_map(|word| word.as_str().map(str::to_owned)),
                        );
                    }
                    _ => {}
                }
            }
            fields
                .values()
                .for_each(|inner| collect_words(inner, words));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_words(item, words)),
        _ => {}
    }
}
