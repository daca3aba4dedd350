//! Runs that are followed, left and taken up again.

use super::common::Sandbox;
use super::rig::{last, run_with, stdout, stream, until_written};
use axum::http::StatusCode;
use serde_json::json;

#[tokio::test]
async fn k01_output_and_results_come_while_the_code_runs_and_in_order() {
    let sandbox = Sandbox::start();
    let fifo = sandbox.dir.path().join("go");
    let code = format!(
        "import os, sys\nos.mkfifo({0:?})\nprint('one'); display('shown'); print('two', file=sys.stderr)\nopen({0:?}).read()\nprint('three')\n4",
        fifo.to_str().unwrap()
    );
    let mut events = stream(&sandbox, json!({ "code": code, "runId": "r1" })).await;
    let (_, start) = events.next().await.unwrap();
    assert_eq!((&start["type"], &start["runId"]), (&json!("start"), &json!("r1")));
    let mut seen = Vec::new();
    // The code waits: all that comes now comes while it runs.
    while seen.len() < 3 {
        let (_, event) = events.next().await.unwrap();
        seen.push((event["type"].as_str().unwrap().to_owned(), event["text"].as_str().unwrap().to_owned()));
    }
    // What was written before a result comes before it. The other stream's next line may come before it, or behind it.
    let expected = [("stdout", "one\n"), ("result", "'shown'"), ("stderr", "two\n")];
    let expected = expected.map(|(kind, text)| (kind.to_owned(), text.to_owned()));
    assert_eq!(seen[0], expected[0]);
    assert!(seen.contains(&expected[1]) && seen.contains(&expected[2]), "{seen:?}");
    std::fs::write(&fifo, "go").unwrap();
    assert_eq!(events.next().await.unwrap().1, json!({ "type": "stdout", "text": "three\n" }));
    assert_eq!(events.next().await.unwrap().1, json!({ "type": "result", "text": "4" }));
    let end = events.next().await.unwrap().1;
    assert_eq!((&end["type"], &end["execution_count"]), (&json!("execution_complete"), &json!(1)));
    assert!(events.next().await.is_none());
    let failing = last(&mut stream(&sandbox, json!({ "code": "1/0" })).await).await;
    assert_eq!(
        (&failing["type"], &failing["ename"], &failing["evalue"]),
        (&json!("error"), &json!("ZeroDivisionError"), &json!("division by zero"))
    );
    assert_eq!(failing["outcome"]["error"]["lineNumber"], 1);
}

#[tokio::test]
async fn s12_a_lost_stream_ends_nothing_and_is_resumed_without_a_seam() {
    let sandbox = Sandbox::start();
    let fifo = sandbox.dir.path().join("go");
    let code = format!(
        "import os\nos.mkfifo({0:?})\nprint('before')\nopen({0:?}).read()\nprint('after')\n5",
        fifo.to_str().unwrap()
    );
    let request = json!({ "code": code, "runId": "kept" });
    let mut events = stream(&sandbox, request.clone()).await;
    let mut id = String::new();
    loop {
        let (at, event) = events.next().await.unwrap();
        id = if event["type"] == "stdout" { at } else { id };
        if event["type"] == "stdout" {
            break;
        }
    }
    drop(events);
    std::fs::write(&fifo, "go").unwrap();
    let mut resumed = sandbox.resume_at("/code/runs/kept/stream", &id).await;
    assert_eq!(resumed.next().await.unwrap().1["type"], "start");
    assert_eq!(resumed.next().await.unwrap().1, json!({ "type": "stdout", "text": "after\n" }));
    assert_eq!(last(&mut resumed).await["type"], "execution_complete");
    // The same request again is the same run.
    let again = run_with(&sandbox, request.clone()).await;
    assert_eq!((stdout(&again), &again["executionCount"]), ("before\nafter\n".to_owned(), &json!(1)));
    let (_, result) = sandbox.call("GET", "/code/runs/kept/result", None).await;
    assert_eq!(result, again);
    for (field, value) in [
        ("code", json!("1")),
        ("language", json!("python")),
        ("envVars", json!({ "A": "1" })),
        ("timeout", json!(5000)),
        ("sessionId", json!("s")),
    ] {
        let mut other = request.clone();
        other[field] = value;
        let (status, error) = sandbox.call("POST", "/code/run", Some(&other)).await;
        assert_eq!(
            (status, &error["code"]),
            (StatusCode::CONFLICT, &json!("EXEC_ALREADY_EXISTS")),
            "{field}"
        );
    }
    let (status, error) = sandbox.call("GET", "/code/runs/none/result", None).await;
    assert_eq!((status, &error["code"]), (StatusCode::NOT_FOUND, &json!("EXEC_NOT_FOUND")));
}

#[tokio::test]
async fn s08_one_context_runs_in_order_and_contexts_run_in_parallel() {
    let sandbox = Sandbox::start();
    let fifo = sandbox.dir.path().join("go");
    let code = format!(
        "import os\nos.mkfifo({0:?})\nprint('on')\nopen({0:?}).read()\norder = ['first']",
        fifo.to_str().unwrap()
    );
    let mut first = stream(&sandbox, json!({ "code": code })).await;
    until_written(&mut first, "on").await;
    let second = run_with(&sandbox, json!({ "code": "order.append('second'); order" }));
    let other = async {
        assert_eq!(
            run_with(&sandbox, json!({ "code": "1 + 1", "language": "javascript" })).await["results"][0]["text"],
            "2"
        );
        let (_, info) = sandbox.call("GET", "/code/contexts", None).await;
        assert_eq!(info["contexts"].as_array().unwrap().len(), 2);
        tokio::fs::write(&fifo, "go").await.unwrap();
    };
    let (second, ()) = tokio::join!(second, other);
    assert_eq!(second["results"][0]["text"], "['first', 'second']");
}

#[tokio::test]
async fn s08_the_queue_is_bounded() {
    let sandbox = Sandbox::start();
    let mut first =
        stream(&sandbox, json!({ "code": "print('on')\nwhile True: pass", "runId": "loop" })).await;
    until_written(&mut first, "on").await;
    let queued = futures_util::future::join_all((0..256).map(|n| {
        let request = json!({ "code": n.to_string() });
        let sandbox = &sandbox;
        async move { sandbox.call("POST", "/code/run", Some(&request)).await }
    }));
    let then = async {
        let (status, error) = sandbox.call("POST", "/code/run", Some(&json!({ "code": "1" }))).await;
        assert_eq!((status, &error["code"]), (StatusCode::CONFLICT, &json!("RESOURCE_BUSY")));
        assert_eq!(error["context"]["waiting"], 256);
        sandbox.call("POST", "/code/runs/loop/cancel", None).await;
    };
    let (queued, ()) = tokio::join!(queued, then);
    for (n, (status, answer)) in queued.into_iter().enumerate() {
        assert_eq!((status, &answer["results"][0]["text"]), (StatusCode::OK, &json!(n.to_string())));
    }
}
