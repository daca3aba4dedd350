//! Streams over connections that break (contract S12).

use crate::peer::{Leg, Script, client, event};
use proptest::prelude::*;
use sandcrab_client::{ClientError, ExecEvent, SandboxOptions};
use serde_json::json;

/// Everything that a stream told: output, and the rest by name.
async fn follow(url: &str) -> Result<(Vec<u8>, Vec<String>), ClientError> {
    let sandbox = client(url).sandbox("x", SandboxOptions::default())?;
    let mut stream = sandbox.exec("x").stream().await?;
    let (mut output, mut rest) = (Vec::new(), Vec::new());
    while let Some(event) = stream.next().await {
        match event? {
            ExecEvent::Stdout(bytes) => output.extend_from_slice(&bytes),
            ExecEvent::Start { .. } => rest.push("start".to_owned()),
            ExecEvent::Dropped { bytes, .. } => rest.push(format!("dropped {bytes}")),
            ExecEvent::Complete(outcome) => rest.push(format!("complete {}", outcome.exit_code)),
            other => rest.push(format!("{other:?}")),
        }
    }
    Ok((output, rest))
}

fn leg() -> impl Strategy<Value = Leg> {
    (1_usize..40, 1_usize..12, 0_usize..60, any::<bool>()).prop_map(|(chunk, events, overlap, polite)| Leg {
        chunk,
        events: Some(events),
        overlap,
        polite,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn s12_a_stream_has_no_seam_however_often_it_breaks(
        output in proptest::collection::vec(any::<u8>(), 0..400),
        legs in proptest::collection::vec(leg(), 0..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let script = Script::new(output.clone(), legs);
        let (received, rest) = runtime.block_on(async { follow(&script.serve().await).await }).unwrap();
        prop_assert_eq!(received, output);
        prop_assert_eq!(rest, ["start", "complete 3"]);
    }
}

#[tokio::test]
async fn s12_a_stream_that_makes_no_progress_is_given_up() {
    let stuck = Leg { chunk: 1, events: Some(0), overlap: 0, polite: true };
    let script = Script::new(b"never".to_vec(), vec![stuck; 100]);
    let error = follow(&script.serve().await).await.unwrap_err();
    assert!(matches!(error, ClientError::StreamLost { .. }), "{error:?}");
    assert!((3..40).contains(&script.connections()), "{}", script.connections());
}

/// A stream of one connection that says `body` and then ends well.
async fn once(body: String) -> Result<(Vec<u8>, Vec<String>), ClientError> {
    let url = crate::peer::raw(move |_, mut stream, _| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        let answer = format!("{head}{body}");
        async move { crate::peer::say(&mut stream, &answer).await }
    })
    .await;
    follow(&url).await
}

#[tokio::test]
async fn s12_what_was_dropped_is_told_once() {
    let complete = event("complete", [12, 0], &json!({ "exitCode": 0, "duration": 1.0 }));
    let dropped = event("dropped", [10, 0], &json!({ "stream": "stdout", "bytes": 10 }));
    let data = event("stdout", [12, 0], &json!({ "data": crate::peer::base64(b"ab") }));
    let told = once(format!("{dropped}{dropped}{data}{data}{complete}")).await.unwrap();
    assert_eq!(told, (b"ab".to_vec(), vec!["dropped 10".to_owned(), "complete 0".to_owned()]));
}

#[tokio::test]
async fn s12_a_gap_that_is_not_told_is_an_error() {
    let error =
        once(event("stdout", [100, 0], &json!({ "data": crate::peer::base64(b"ab") }))).await.unwrap_err();
    assert!(error.to_string().contains("gap"), "{error}");
}

#[tokio::test]
async fn s02_a_stream_that_is_not_as_documented_is_an_error() {
    for (body, part) in [
        ("data: <html>\n\n".to_owned(), "not as documented"),
        ("data: {\"type\":5}\n\n".to_owned(), "not as documented"),
        (event("complete", [0, 0], &json!({ "exitCode": "zero" })), "not as documented"),
        (event("stdout", [2, 0], &json!({ "data": "***" })), "base64"),
        ("id: x\ndata: {\"type\":\"stdout\",\"data\":\"YWI=\"}\n\n".to_owned(), "offsets"),
    ] {
        let error = once(body).await.unwrap_err();
        assert!(matches!(error, ClientError::Unexpected { .. }), "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn x01_a_commands_error_comes_as_an_error() {
    let detail = json!({
        "code": "COMMAND_TIMEOUT", "message": "the command timed out", "httpStatus": 408, "context": {},
        "timestamp": "2026-01-31T12:00:00.000Z",
    });
    let error =
        once(event("error", [0, 0], &json!({ "error": "timeout", "detail": detail }))).await.unwrap_err();
    assert_eq!(error.code(), Some(sandcrab_client::api::ErrorCode::CommandTimeout));
}
