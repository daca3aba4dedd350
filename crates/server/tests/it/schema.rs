//! Every answer is held against the document: its status is listed, its type is listed, its body fits the schema.

use crate::harness::Answer;
use http::Method;
use jsonschema::Validator;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

pub(crate) static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(sandcrab_server::openapi().unwrap()).unwrap());

/// The operation of a request, as the document has it; none if it has none.
fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let path = path.split('?').next().unwrap_or_default();
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let fits = |template: &str| {
        let (mut parts, mut names) = (path.split('/'), template.split('/'));
        loop {
            match (parts.next(), names.next()) {
                (None, None) => return true,
                (Some(part), Some(name)) if part == name || (name.starts_with('{') && !part.is_empty()) => {}
                _ => return false,
            }
        }
    };
    // A literal path wins over one with parameters.
    let mut found: Vec<_> = paths.iter().filter(|(template, _)| fits(template)).collect();
    found.sort_by_key(|(template, _)| template.matches('{').count());
    found.first()?.1.get(method.as_str().to_ascii_lowercase())
}

/// The schemas refer to each other by `#/components/schemas/…`, so each is compiled within the whole document.
fn validator(schema: &Value) -> Validator {
    let whole = json!({ "components": DOCUMENT["components"], "allOf": [schema] });
    jsonschema::draft202012::new(&whole).unwrap()
}

fn fits(schema: &Value, body: &Value) -> Result<(), String> {
    static COMPILED: LazyLock<Mutex<HashMap<String, Validator>>> = LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap();
    let validator = compiled.entry(schema.to_string()).or_insert_with(|| validator(schema));
    let errors: Vec<_> = validator.iter_errors(body).map(|e| format!("{}: {e}", e.instance_path())).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

/// Holds a part of an answer against a schema by its name.
#[track_caller]
pub(crate) fn check_named(name: &str, body: &Value) {
    fits(&json!({ "$ref": format!("#/components/schemas/{name}") }), body)
        .unwrap_or_else(|why| panic!("{why}: {body}"));
}

#[track_caller]
pub(crate) fn check(method: &Method, path: &str, answer: &Answer) {
    assert!(answer.headers.contains_key("x-request-id"), "{method} {path}: {answer:?}");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{method} {path}");
    let Some(operation) = operation(method, path) else {
        // What the document does not know is refused with an error of the common form.
        assert!(
            answer.status.is_client_error() || answer.status.as_u16() == 204,
            "{method} {path}: {answer:?}"
        );
        if answer.status.as_u16() != 204 {
            fits(&json!({"$ref": "#/components/schemas/ApiError"}), &answer.json()).unwrap();
        }
        return;
    };
    let listed = &operation["responses"][answer.status.as_str()];
    assert!(
        listed.is_object(),
        "{method} {path}: status {} is not in the document: {answer:?}",
        answer.status
    );
    let content_type = answer.headers["content-type"].to_str().unwrap().split(';').next().unwrap();
    let content = &listed["content"][content_type];
    assert!(content.is_object(), "{method} {path}: {content_type} is not listed for {}", answer.status);
    if content_type == "application/json" {
        fits(&content["schema"], &answer.json())
            .unwrap_or_else(|why| panic!("{method} {path}: {why}: {answer:?}"));
    }
}

#[test]
fn x01_the_committed_document_is_the_servers() {
    let committed: Value = serde_json::from_str(include_str!("../../../../openapi.json")).unwrap();
    assert!(committed == *DOCUMENT, "run `cargo xtask openapi` and commit the result");
}

#[test]
fn x01_the_document_is_whole() {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let mut ids = std::collections::HashSet::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap()),
                "{name}: operationId is not unique"
            );
            // Each parameter in the path is declared, and nothing else as one.
            let mut named: Vec<_> =
                path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}')).collect();
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let mut declared: Vec<_> = parameters
                .iter()
                .filter(|p| p["in"] == "path")
                .map(|p| p["name"].as_str().unwrap())
                .collect();
            named.sort_unstable();
            declared.sort_unstable();
            assert_eq!(named, declared, "{name}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                if let Some(stream) = response["content"].get("text/event-stream") {
                    assert_eq!(
                        stream["schema"]["properties"]["data"]["contentMediaType"], "application/json",
                        "{name}"
                    );
                }
                if status.starts_with(['4', '5']) {
                    let schema = &response["content"]["application/json"]["schema"];
                    assert_eq!(schema["$ref"], "#/components/schemas/ApiError", "{name} {status}");
                }
            }
            if matches!(method.as_str(), "post" | "patch") && !path.ends_with("/cancel") {
                assert!(operation["requestBody"].is_object(), "{name}: no request body");
            }
        }
    }
    for name in ["/health", "/v1/sandboxes/{id}", "/v1/sandboxes/{id}/exec"] {
        assert!(paths.contains_key(name), "{name}");
    }
    assert!(!paths.keys().any(|path| path.ends_with("/agent")));
    references(&DOCUMENT);
    for schema in DOCUMENT["components"]["schemas"].as_object().unwrap().values() {
        validator(schema);
    }
}

/// Each reference leads somewhere.
fn references(value: &Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                let pointer = target.strip_prefix('#').unwrap();
                assert!(DOCUMENT.pointer(pointer).is_some(), "{target}");
            }
            map.values().for_each(references);
        }
        Value::Array(list) => list.iter().for_each(references),
        _ => {}
    }
}
