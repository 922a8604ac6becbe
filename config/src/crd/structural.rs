//! From the JSON Schema of a type to what Kubernetes calls a structural schema: nothing refers to anything, every value
//! has one type, what is one of several is an object with a rule, and everything has an end.
//!
//! Unknown fields are not named here: an API server drops or refuses them on its own, as kubectl asks it to
//! (`--validate=strict`, its default), and the validating webhook sees to the rest.

use serde_json::{Map, Value, json};

use super::rules;

/// Of a text whose type names no bound. An API server reckons with the worst case, so it must have one.
const TEXT_CHARS_MAX: u32 = 1024;

/// `root` as schemars writes it: definitions inside.
pub(super) fn schema(root: &Value) -> Value {
    let none = Map::new();
    let definitions = root["$defs"].as_object().unwrap_or(&none);
    let name = root["title"].as_str().unwrap_or_default();
    Structure { definitions }.of(root, name)
}

struct Structure<'a> {
    definitions: &'a Map<String, Value>,
}

impl Structure<'_> {
    /// `name`: of the type, by which its rules are known; empty when it has none.
    fn of(&self, schema: &Value, name: &str) -> Value {
        let mut out = self.shape(schema, name);
        if let Some(fields) = out.as_object_mut() {
            self.overlay(schema, fields);
            let rules = rules::of(name);
            if !rules.is_empty() {
                validations(fields).extend(rules.into_iter().map(|rule| rule.to_value()));
            }
            if fields["type"] == "string"
                && !fields.contains_key("enum")
                && !fields.contains_key("maxLength")
            {
                fields.insert("maxLength".to_owned(), TEXT_CHARS_MAX.into());
            }
        }
        out
    }

    /// The value's type and what follows from it.
    fn shape(&self, schema: &Value, name: &str) -> Value {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            let definition =
                (self.definitions.get(name)).unwrap_or_else(|| panic!("{reference} leads nowhere"));
            return self.of(definition, name);
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            // What may be left out may also be written as null.
            let mut choices = choices.iter().filter(|choice| choice["type"] != "null");
            let (Some(only), None) = (choices.next(), choices.next()) else {
                panic!("{name}: a value has one type in a structural schema");
            };
            return self.of(only, "");
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            return self.one_of(choices, name);
        }
        if let Some(word) = schema.get("const") {
            return json!({ "type": "string", "enum": [word] });
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null"),
            kind => Some(kind),
        };
        let kind = kind.and_then(Value::as_str);
        let kind = kind.unwrap_or_else(|| panic!("{name}: a value without a type: {schema}"));
        let mut out = json!({ "type": kind });
        if let Some(properties) = schema["properties"].as_object() {
            out["properties"] = self.properties(properties);
        }
        if schema.get("items").is_some() {
            out["items"] = self.of(&schema["items"], "");
            out["x-kubernetes-list-type"] = "atomic".into();
        }
        if schema["additionalProperties"].is_object() {
            out["additionalProperties"] = self.of(&schema["additionalProperties"], "");
        }
        out
    }

    fn properties(&self, properties: &Map<String, Value>) -> Value {
        let each = properties
            .iter()
            .map(|(name, schema)| (name.clone(), self.of(schema, "")));
        Value::Object(each.collect())
    }

    /// Words, or objects of which each has one field.
    fn one_of(&self, choices: &[Value], name: &str) -> Value {
        let words: Vec<&Value> = choices.iter().flat_map(words).collect();
        if !words.is_empty() {
            return json!({ "type": "string", "enum": words });
        }
        let mut properties = Map::new();
        for choice in choices {
            let fields = choice["properties"].as_object();
            let fields =
                fields.unwrap_or_else(|| panic!("{name}: one of words and objects together"));
            properties.extend(fields.clone());
        }
        let names: Vec<&str> = properties.keys().map(String::as_str).collect();
        json!({
            "type": "object",
            "properties": self.properties(&properties),
            "x-kubernetes-validations": [rules::exactly_one(&names)],
        })
    }

    /// What is said beside the type: bounds as they are, the rest in the words of OpenAPI 3.0.
    fn overlay(&self, schema: &Value, out: &mut Map<String, Value>) {
        for (keyword, value) in schema.as_object().into_iter().flatten() {
            match keyword.as_str() {
                "description" | "required" | "enum" | "pattern" | "minimum" | "maximum"
                | "minLength" | "maxLength" | "minItems" | "maxItems" | "maxProperties" => {
                    out.insert(keyword.clone(), value.clone());
                }
                "exclusiveMinimum" => {
                    out.insert("minimum".to_owned(), value.clone());
                    out.insert("exclusiveMinimum".to_owned(), true.into());
                }
                "default" if !value.is_null() => {
                    out.insert("default".to_owned(), value.clone());
                }
                // Told by `shape`, or of no use to an API server.
                "$ref"
                | "$defs"
                | "$schema"
                | "title"
                | "type"
                | "anyOf"
                | "oneOf"
                | "const"
                | "properties"
                | "items"
                | "additionalProperties"
                | "default"
                | "examples"
                | "format" => {}
                other => panic!("{other} cannot be said in a structural schema: {schema}"),
            }
        }
    }
}

fn words(choice: &Value) -> Vec<&Value> {
    let several = choice["enum"].as_array().into_iter().flatten();
    several.chain(choice.get("const")).collect()
}

fn validations(fields: &mut Map<String, Value>) -> &mut Vec<Value> {
    let rules = fields
        .entry("x-kubernetes-validations")
        .or_insert_with(|| json!([]));
    rules.as_array_mut().expect("rules are a list")
}
