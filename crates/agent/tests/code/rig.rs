//! What tests of code do with a sandbox.

use super::common::{Events, Sandbox};
use axum::http::StatusCode;
use serde_json::{Value, json};

/// Runs code in the default context of a language; the run must succeed as a call.
pub(crate) async fn run(sandbox: &Sandbox, language: &str, code: &str) -> Value {
    run_with(sandbox, json!({ "code": code, "language": language })).await
}

pub(crate) async fn run_with(sandbox: &Sandbox, request: Value) -> Value {
    let (status, answer) = sandbox.call("POST", "/code/run", Some(&request)).await;
    assert_eq!(status, StatusCode::OK, "{request} -> {answer}");
    answer
}

/// The text of the last result; the code must not fail.
pub(crate) async fn text(sandbox: &Sandbox, language: &str, code: &str) -> String {
    text_of(&run(sandbox, language, code).await)
}

pub(crate) fn text_of(answer: &Value) -> String {
    assert!(answer.get("error").is_none(), "{answer}");
    let last = answer["results"].as_array().unwrap().last().unwrap_or_else(|| panic!("no result: {answer}"));
    last["text"].as_str().unwrap().to_owned()
}

/// Everything that was written to stdout.
pub(crate) fn stdout(answer: &Value) -> String {
    joined(&answer["logs"]["stdout"])
}

/// Everything that was written to stderr.
pub(crate) fn stderr(answer: &Value) -> String {
    joined(&answer["logs"]["stderr"])
}

fn joined(pieces: &Value) -> String {
    pieces.as_array().unwrap().iter().map(|piece| piece.as_str().unwrap()).collect()
}

/// Makes a context and gives its id.
pub(crate) async fn create(sandbox: &Sandbox, request: Value) -> String {
    let (status, answer) = sandbox.call("POST", "/code/contexts", Some(&request)).await;
    assert_eq!(status, StatusCode::CREATED, "{request} -> {answer}");
    answer["id"].as_str().unwrap().to_owned()
}

/// Starts a run and follows it.
pub(crate) async fn stream(sandbox: &Sandbox, request: Value) -> Events {
    let response = sandbox.send("POST", "/code/run/stream", Some(&request)).await;
    assert_eq!(response.status(), StatusCode::OK, "{request}");
    Events::of(response)
}

/// Follows a stream until the code has written `text` to stdout.
pub(crate) async fn until_written(events: &mut Events, text: &str) {
    let mut written = String::new();
    while !written.contains(text) {
        let (_, event) = events.next().await.expect("the run goes on");
        assert!(event["type"] != "error", "{event}");
        if event["type"] == "stdout" {
            written.push_str(event["text"].as_str().unwrap());
        }
    }
}

/// Reads a stream to its last event.
pub(crate) async fn last(events: &mut Events) -> Value {
    let mut last = Value::Null;
    while let Some((_, event)) = events.next().await {
        last = event;
    }
    last
}
