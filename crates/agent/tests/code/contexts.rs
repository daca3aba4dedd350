//! Contexts: what they start with, what they follow, what is left of them.

use super::common::Sandbox;
use super::rig::{create, last, run, run_with, stream, text, text_of, until_written};
use axum::http::StatusCode;
use serde_json::json;

async fn in_context(sandbox: &Sandbox, id: &str, code: &str) -> String {
    text_of(&run_with(sandbox, json!({ "code": code, "contextId": id })).await)
}

#[tokio::test]
async fn k01_contexts_are_apart_and_listed() {
    let sandbox = Sandbox::start();
    let a = create(&sandbox, json!({})).await;
    let b = create(&sandbox, json!({ "language": "python3" })).await;
    run_with(&sandbox, json!({ "code": "x = 'a'", "contextId": a })).await;
    run_with(&sandbox, json!({ "code": "x = 'b'", "contextId": b, "language": "python" })).await;
    assert_eq!(
        (in_context(&sandbox, &a, "x").await, in_context(&sandbox, &b, "x").await),
        ("'a'".into(), "'b'".into())
    );
    assert_eq!(
        run(&sandbox, "python", "x").await["error"]["name"],
        "NameError",
        "the default one is another"
    );
    let pid = in_context(&sandbox, &a, "import os; os.getpid()").await;
    assert_ne!(pid, in_context(&sandbox, &b, "import os; os.getpid()").await);

    let (_, list) = sandbox.call("GET", "/code/contexts", None).await;
    let contexts = list["contexts"].as_array().unwrap();
    assert_eq!(
        contexts.iter().map(|context| context["id"].as_str().unwrap()).collect::<Vec<_>>()[..2],
        [&a, &b]
    );
    assert_eq!((contexts.len(), &contexts[0]["language"]), (3, &json!("python")));
    assert!(contexts[0]["lastUsed"].as_str().unwrap() >= contexts[0]["createdAt"].as_str().unwrap());

    let mismatch = json!({ "code": "1", "contextId": a, "language": "javascript" });
    let (status, error) = sandbox.call("POST", "/code/run", Some(&mismatch)).await;
    assert_eq!(
        (status, &error["context"]["validationErrors"][0]["field"]),
        (StatusCode::BAD_REQUEST, &json!("language"))
    );
}

#[tokio::test]
async fn k01_s02_a_pipe_of_packets_loses_nothing() {
    let sandbox = Sandbox::start();
    let code = "import fcntl, os\nfcntl.fcntl(1, fcntl.F_SETFL, os.O_DIRECT)\n\
                for i in range(10): os.write(1, b'line %d\\n' % i)";
    for _ in 0..20 {
        let ran = run(&sandbox, "python", code).await;
        let lines: String =
            ran["logs"]["stdout"].as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
        assert_eq!(lines.lines().count(), 10, "{ran}");
    }
}

#[tokio::test]
async fn k01_a_deleted_context_leaves_nothing_and_is_never_used_again() {
    let sandbox = Sandbox::start();
    let id = create(&sandbox, json!({})).await;
    let code = "import os, subprocess\nchild = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n(os.getpid(), child.pid)";
    let pids = in_context(&sandbox, &id, code).await;
    let mut running =
        stream(&sandbox, json!({ "code": "print('on')\nwhile True: pass", "contextId": id })).await;
    until_written(&mut running, "on").await;
    let mut waiting = stream(&sandbox, json!({ "code": "1", "contextId": id })).await;
    let (status, answer) = sandbox.call("DELETE", &format!("/code/contexts/{id}"), None).await;
    assert_eq!((status, &answer["contextId"]), (StatusCode::OK, &json!(id)));
    for events in [&mut running, &mut waiting] {
        let end = last(events).await;
        assert_eq!(end["detail"]["code"], "OPERATION_INTERRUPTED", "{end}");
    }
    for pid in pids.trim_matches(['(', ')']).split(", ") {
        let seen = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(seen.is_empty() || seen.contains(") Z "), "process {pid} is left: {seen}");
    }
    for (method, path, body) in [
        ("DELETE", format!("/code/contexts/{id}"), None),
        ("POST", "/code/run".to_owned(), Some(json!({ "code": "1", "contextId": id }))),
    ] {
        let (status, error) = sandbox.call(method, &path, body.as_ref()).await;
        assert_eq!(
            (status, &error["code"], &error["context"]["contextId"]),
            (StatusCode::NOT_FOUND, &json!("CONTEXT_NOT_FOUND"), &json!(id))
        );
    }
}

#[tokio::test]
async fn s14_contexts_start_where_their_session_stands_and_options_win() {
    let sandbox = Sandbox::start();
    let workspace = sandbox.dir.path().join("workspace").to_str().unwrap().to_owned();
    sandbox.exec("s", "mkdir sub; cd sub; export FROM=session MORE=1; plain=2").await;
    let seen =
        "import os; (os.getcwd(), os.environ.get('FROM'), os.environ.get('MORE'), os.environ.get('plain'))";
    let id = create(&sandbox, json!({ "sessionId": "s" })).await;
    assert_eq!(in_context(&sandbox, &id, seen).await, format!("('{workspace}/sub', 'session', '1', None)"));
    let options =
        json!({ "sessionId": "s", "cwd": "made/here", "envVars": { "FROM": "option", "MORE": null } });
    let id = create(&sandbox, options).await;
    assert_eq!(
        in_context(&sandbox, &id, seen).await,
        format!("('{workspace}/sub/made/here', 'option', None, None)")
    );
    let plain = create(&sandbox, json!({})).await;
    assert_eq!(in_context(&sandbox, &plain, seen).await, format!("('{workspace}', None, None, None)"));

    // A session's own default context follows it.
    let in_session = |code: &str| json!({ "code": code, "sessionId": "s" });
    assert_eq!(
        text_of(&run_with(&sandbox, in_session(seen)).await),
        format!("('{workspace}/sub', 'session', '1', None)")
    );
    run_with(&sandbox, in_session("kept = 1; os.environ['FROM'] = 'code'")).await;
    sandbox.exec("s", "cd ..; export FROM=changed MORE=2").await;
    let moved = text_of(&run_with(&sandbox, in_session(seen)).await);
    assert_eq!(moved, format!("('{workspace}', 'code', '2', None)"), "what the code itself has set stays");
    assert_eq!(text_of(&run_with(&sandbox, in_session("kept")).await), "1");
    assert_eq!(text(&sandbox, "python", seen).await, format!("('{workspace}', None, None, None)"));
}

#[tokio::test]
async fn s11_the_sandboxs_variables_reach_contexts_with_their_next_run() {
    let sandbox = Sandbox::start();
    let seen = |language| match language {
        "python" => "import os; (os.environ.get('A'), os.environ.get('B'))",
        _ => "[process.env.A ?? null, process.env.B ?? null]",
    };
    for language in ["python", "javascript"] {
        sandbox.call("PATCH", "/env", Some(&json!({ "env": { "A": null, "B": null } }))).await;
        let own = create(&sandbox, json!({ "language": language, "envVars": { "B": "own" } })).await;
        run(&sandbox, language, "1").await;
        sandbox.call("PATCH", "/env", Some(&json!({ "env": { "A": "1", "B": "2" } }))).await;
        let default = text(&sandbox, language, seen(language)).await;
        assert!(default == "('1', '2')" || default == "[ '1', '2' ]", "{default}");
        let own = in_context(&sandbox, &own, seen(language)).await;
        assert!(own == "('1', 'own')" || own == "[ '1', 'own' ]", "{own}");
        sandbox.call("PATCH", "/env", Some(&json!({ "env": { "A": null } }))).await;
        let unset = text(&sandbox, language, seen(language)).await;
        assert!(unset == "(None, '2')" || unset == "[ null, '2' ]", "{unset}");
        // A run's own hold for that run only.
        let request =
            json!({ "code": seen(language), "language": language, "envVars": { "A": "once", "B": null } });
        let once = text_of(&run_with(&sandbox, request).await);
        assert!(once == "('once', None)" || once == "[ 'once', null ]", "{once}");
        let after = text(&sandbox, language, seen(language)).await;
        assert_eq!(after, unset);
    }
}

#[tokio::test]
async fn k01_a_spare_becomes_a_context_as_if_it_had_been_started_for_it() {
    let sandbox = Sandbox::start();
    let workspace = sandbox.dir.path().join("workspace").to_str().unwrap().to_owned();
    for (language, seen) in [
        (
            "python",
            "import os, sys; (os.getcwd(), os.environ.get('A'), sorted(set(dir()) - {'os', 'sys'})[:1], sys.argv)",
        ),
        ("typescript", "[process.cwd(), process.env.A, process.argv.length]"),
    ] {
        // The first run behind a start asks for a spare; which of the later ones gets one is a matter of time.
        let mut texts = Vec::new();
        for _ in 0..4 {
            let id = create(&sandbox, json!({ "language": language, "cwd": "sub", "envVars": { "A": "1" } }))
                .await;
            texts.push(in_context(&sandbox, &id, seen).await);
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        }
        assert!(texts[0].contains(&format!("{workspace}/sub")) && texts[0].contains("'1'"), "{texts:?}");
        assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    }
}

#[tokio::test]
async fn k01_bad_input_names_its_field_and_makes_no_context() {
    let sandbox = Sandbox::start();
    std::fs::write(sandbox.dir.path().join("workspace/file"), "").unwrap();
    for (request, field) in [
        (json!({ "language": "ruby" }), "language"),
        (json!({ "timeout": 0 }), "timeout"),
        (json!({ "envVars": { "A=B": "1" } }), "envVars.A=B"),
        (json!({ "cwd": "" }), "cwd"),
        (json!({ "colour": 1 }), "colour"),
    ] {
        let (status, error) = sandbox.call("POST", "/code/contexts", Some(&request)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{request}");
        assert_eq!(error["context"]["validationErrors"][0]["field"], field, "{error}");
    }
    let (status, error) = sandbox.call("POST", "/code/contexts", Some(&json!({ "cwd": "file" }))).await;
    assert!(status.is_client_error(), "{error}");
    assert_eq!(error["context"]["field"], "cwd");
    for (request, field) in [
        (json!({ "code": 1 }), "code"),
        (json!({ "code": "1", "contextId": "a/b" }), "contextId"),
        (json!({ "code": "1", "timeout": 0 }), "timeout"),
        (json!({ "code": "x".repeat((8 << 20) + 1) }), "code"),
    ] {
        let (status, error) = sandbox.call("POST", "/code/run", Some(&request)).await;
        assert_eq!(
            (status, &error["context"]["validationErrors"][0]["field"]),
            (StatusCode::BAD_REQUEST, &json!(field))
        );
    }
    let (_, list) = sandbox.call("GET", "/code/contexts", None).await;
    assert_eq!(list["contexts"], json!([]));
}

#[tokio::test]
async fn k01_a_language_that_is_not_on_the_path_is_a_501_with_a_remedy() {
    let sandbox = Sandbox::start();
    sandbox.call("PATCH", "/env", Some(&json!({ "env": { "PATH": "/nowhere" } }))).await;
    for (language, code) in [
        ("python", "PYTHON_NOT_AVAILABLE"),
        ("javascript", "JAVASCRIPT_NOT_AVAILABLE"),
        ("typescript", "JAVASCRIPT_NOT_AVAILABLE"),
    ] {
        for (path, request) in [
            ("/code/contexts", json!({ "language": language })),
            ("/code/run", json!({ "language": language, "code": "1" })),
        ] {
            let (status, error) = sandbox.call("POST", path, Some(&request)).await;
            assert_eq!((status, &error["code"]), (StatusCode::NOT_IMPLEMENTED, &json!(code)), "{error}");
            assert!(error["suggestion"].as_str().unwrap().contains("image"), "{error}");
        }
    }
}

#[tokio::test]
async fn x04_an_interpreter_that_is_killed_as_it_starts_is_to_be_tried_again() {
    let sandbox = Sandbox::start();
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("python3");
    let busy = StatusCode::SERVICE_UNAVAILABLE;
    for (script, status, code, said) in [
        ("#!/bin/sh\nkill -9 $$\n", busy, "INTERPRETER_NOT_READY", "(signal 9)"),
        // One that the agent ends: its own kill is not the reason.
        (
            "#!/bin/bash\nexec 10<&- 14>&-; echo odd >&2; exec /bin/sleep 100\n",
            busy,
            "INTERPRETER_NOT_READY",
            "which had stopped listening before it was ready: odd",
        ),
        // The control: one that ends by itself will again.
        (
            "#!/bin/sh\necho broken >&2; exit 3\n",
            StatusCode::INTERNAL_SERVER_ERROR,
            "CODE_EXECUTION_ERROR",
            "(exit code 3): broken",
        ),
    ] {
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let env = json!({ "env": { "PATH": directory.path().to_str().unwrap() } });
        sandbox.call("PATCH", "/env", Some(&env)).await;
        let (answered, error) = sandbox.call("POST", "/code/contexts", Some(&json!({}))).await;
        assert_eq!((answered, &error["code"]), (status, &json!(code)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
        assert_eq!(error["context"].get("retryAfter").is_some(), answered == StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn e07_contexts_are_bounded() {
    let sandbox = Sandbox::start();
    // Contexts of runs count too; the bound is far below what a machine could start at once.
    let made = futures_util::future::join_all(
        (0..66).map(|_| async { sandbox.call("POST", "/code/contexts", Some(&json!({}))).await }),
    )
    .await;
    let refused: Vec<_> =
        made.iter().filter(|(status, _)| *status == StatusCode::TOO_MANY_REQUESTS).collect();
    assert_eq!(refused.len(), 2);
    let context = &refused[0].1["context"];
    assert_eq!((&context["limit"], &context["scope"]), (&json!(64), &json!("codeContexts")));
    let (_, list) = sandbox.call("GET", "/code/contexts", None).await;
    for context in list["contexts"].as_array().unwrap() {
        sandbox.call("DELETE", &format!("/code/contexts/{}", context["id"].as_str().unwrap()), None).await;
    }
    create(&sandbox, json!({})).await;
}
