//! Runs that are stopped: by their timeout, by a cancel, by the end of their interpreter.

use super::common::Sandbox;
use super::rig::{create, last, run, run_with, stdout, stream, text, text_of, until_written};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Code that never ends, in ways that an interrupt must reach; each says `on` first.
const PYTHON: [&str; 5] = [
    "print('on')\nwhile True: pass",
    "print('on')\nimport time; time.sleep(1000)",
    "print('on')\nimport asyncio; await asyncio.sleep(1000)",
    "print('on')\nimport subprocess; subprocess.run(['sleep', '1000'])",
    "print('on')\nclass R:\n  def __repr__(self):\n    while True: pass\nR()",
];
const JAVASCRIPT: [&str; 6] = [
    "console.log('on'); while (true) {}",
    "console.log('on'); await new Promise(() => {})",
    "console.log('on'); await 1; while (true) {}",
    "console.log('on'); await new Promise((r) => setTimeout(r, 5)); for (;;) {}",
    "console.log('on'); ({ get [Symbol.toStringTag]() { while (true) {} } })",
    "console.log('on'); require('node:child_process').execSync('sleep 1000')",
];

async fn cancelled(sandbox: &Sandbox, language: &str, code: &str) -> Value {
    let request = json!({ "code": code, "language": language, "runId": format!("{:x}", rand_id()) });
    let mut events = stream(sandbox, request.clone()).await;
    until_written(&mut events, "on").await;
    let path = format!("/code/runs/{}/cancel", request["runId"].as_str().unwrap());
    let (status, info) = sandbox.call("POST", &path, None).await;
    assert_eq!((status, &info["finished"]), (StatusCode::OK, &json!(true)), "{code}");
    last(&mut events).await
}

fn rand_id() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    u128::from(RandomState::new().hash_one(0)) << 64 | u128::from(RandomState::new().hash_one(1))
}

#[tokio::test]
async fn k02_python_survives_cancels_with_its_state() {
    let sandbox = Sandbox::start();
    run(&sandbox, "python", "kept = [1]").await;
    for code in PYTHON {
        let end = cancelled(&sandbox, "python", code).await;
        assert_eq!(
            (&end["type"], &end["detail"]["code"]),
            (&json!("error"), &json!("OPERATION_INTERRUPTED")),
            "{code}"
        );
        assert!(end["detail"]["context"].get("contextRestarted").is_none(), "{code}: {end}");
        assert_eq!(text(&sandbox, "python", "kept.append(1); len(kept) > 1").await, "True", "{code}");
    }
}

#[tokio::test]
async fn k02_javascript_survives_cancels_with_its_state() {
    let sandbox = Sandbox::start();
    run(&sandbox, "js", "let kept = 1").await;
    for code in JAVASCRIPT {
        let end = cancelled(&sandbox, "js", code).await;
        assert_eq!(
            (&end["type"], &end["detail"]["code"]),
            (&json!("error"), &json!("OPERATION_INTERRUPTED")),
            "{code}"
        );
        assert!(end["detail"]["context"].get("contextRestarted").is_none(), "{code}: {end}");
        assert_eq!(text(&sandbox, "js", "kept").await, "1", "{code}");
    }
}

#[tokio::test]
async fn k02_what_an_interrupted_run_does_later_holds_up_no_other() {
    let sandbox = Sandbox::start();
    run(&sandbox, "js", "let kept = 1").await;
    let code = "console.log('on'); await new Promise((r) => setTimeout(r, 300)); for (;;) {}";
    assert_eq!(cancelled(&sandbox, "js", code).await["type"], "error");
    assert_eq!(text(&sandbox, "js", "kept").await, "1", "before its timer");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(text(&sandbox, "js", "kept").await, "1", "behind it");
}

#[tokio::test]
async fn k02_a_timeout_is_an_error_of_the_result_and_the_state_stays() {
    let sandbox = Sandbox::start();
    for (language, set, code) in
        [("python", "kept = 1", PYTHON[0]), ("javascript", "let kept = 1", JAVASCRIPT[0])]
    {
        run(&sandbox, language, set).await;
        let begun = Instant::now();
        let answer = run_with(&sandbox, json!({ "code": code, "language": language, "timeout": 200 })).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{language}");
        assert_eq!((&answer["error"]["name"], stdout(&answer)), (&json!("TimeoutError"), "on\n".to_owned()));
        assert!(answer["error"]["value"].as_str().unwrap().contains("timeout of 200 ms"), "{answer}");
        assert!(answer.get("contextRestarted").is_none(), "{answer}");
        assert_eq!(text(&sandbox, language, "kept").await, "1");
    }
    // Python tells where it was.
    let answer = run_with(&sandbox, json!({ "code": "x = 1\nwhile True:\n    pass", "timeout": 100 })).await;
    assert!(answer["error"]["lineNumber"].as_u64().unwrap() >= 2, "{answer}");
    // A context's own timeout holds where a run names none.
    let id = create(&sandbox, json!({ "timeout": 100 })).await;
    let answer = run_with(&sandbox, json!({ "code": PYTHON[0], "contextId": id })).await;
    assert_eq!(answer["error"]["name"], "TimeoutError");
}

#[tokio::test]
async fn k02_what_no_interrupt_reaches_is_replaced_and_the_caller_told() {
    let sandbox = Sandbox::start();
    run(&sandbox, "python", "kept = 1").await;
    let deaf = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\nprint('on')\nwhile True: pass";
    let answer = run_with(&sandbox, json!({ "code": deaf, "timeout": 100 })).await;
    assert_eq!(
        (&answer["error"]["name"], &answer["contextRestarted"]),
        (&json!("TimeoutError"), &json!(true))
    );
    assert_eq!(run(&sandbox, "python", "kept").await["error"]["name"], "NameError");
    let end = cancelled(&sandbox, "python", deaf).await;
    assert_eq!(end["detail"]["context"]["contextRestarted"], true, "{end}");
    assert_eq!(text(&sandbox, "python", "1 + 1").await, "2");
}

#[tokio::test]
async fn k02_an_interpreter_that_dies_is_replaced_and_the_caller_told() {
    let sandbox = Sandbox::start();
    for (language, code, how) in [
        ("python", "print('last words', flush=True)\nimport os; os._exit(3)", "exited with code 3"),
        ("python", "import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("python", "import os; os.close(14); print('x')", "exited"),
        ("python", "import os; os.closerange(3, 100); 5", "exited"),
        ("javascript", "process.exit(4)", "exited with code 4"),
        ("javascript", "process.abort()", "ended by signal 6"),
        (
            "typescript",
            "process.kill(process.pid, 'SIGKILL'); await new Promise(() => {})",
            "ended by signal 9",
        ),
    ] {
        let answer = run(&sandbox, language, code).await;
        assert_eq!(
            (&answer["error"]["name"], &answer["contextRestarted"]),
            (&json!("InterpreterExited"), &json!(true)),
            "{code}: {answer}"
        );
        assert!(answer["error"]["value"].as_str().unwrap().contains(how), "{code}: {answer}");
        let next = run(&sandbox, language, "1 + 1").await;
        assert_eq!(text_of(&next), "2", "{code}");
        assert!(next.get("contextRestarted").is_none(), "it was told already");
    }
}

#[tokio::test]
async fn k02_an_interpreter_that_dies_between_two_runs_is_told_of_by_the_next() {
    let sandbox = Sandbox::start();
    let pid = text(&sandbox, "python", "import os; kept = 1; os.getpid()").await;
    let status =
        sandbox.exec("s", &format!("kill -9 {pid}; while kill -0 {pid} 2>/dev/null; do :; done")).await;
    assert_eq!(status["exitCode"], 0);
    let next = run(&sandbox, "python", "1 + 1").await;
    assert_eq!((text_of(&next), &next["contextRestarted"]), ("2".to_owned(), &json!(true)));
}
