//! Sessions through the agent's API: queues, ids, streams, bounds. The shell's own promises are tested beside it.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a module of its own"
)]

#[expect(dead_code, reason = "shared with the tests of processes")]
mod common;

use axum::http::StatusCode;
use common::Sandbox;
use serde_json::json;

#[tokio::test]
async fn s01_state_stays_in_its_session() {
    let sandbox = Sandbox::start();
    sandbox
        .exec(
            "a",
            "cd /usr; export X=1; y=2; f() { echo f; }; alias ll='echo alias'; umask 027; shopt -s nullglob",
        )
        .await;
    let seen = "echo $PWD $X $y; f; ll; umask; shopt nullglob";
    assert_eq!(sandbox.stdout("a", seen).await, "/usr 1 2\nf\nalias\n0027\nnullglob       \ton\n");
    let other = sandbox.exec("b", "echo $PWD $X $y; f; umask").await;
    assert_eq!(other["stdout"], format!("{}/workspace\n0022\n", sandbox.dir.path().display()));
}

#[tokio::test]
async fn s02_output_comes_back_apart_and_byte_for_byte() {
    let sandbox = Sandbox::start();
    let command = r"printf 'out\0\377\n\n'; printf '\316\273err' >&2";
    let text = sandbox.exec("a", command).await;
    assert_eq!(text["stdout"], "out\0\u{fffd}\n\n");
    assert_eq!(text["stderr"], "λerr");
    assert_eq!(text["invalidUtf8"], true);
    let raw = sandbox.exec_with(json!({ "command": command, "encoding": "base64" })).await;
    assert_eq!(raw["stdout"], "b3V0AP8KCg==");
    assert_eq!(raw["encoding"], "base64");
    assert!(raw.get("invalidUtf8").is_none());
}

/// Makes the pipe of stdout one of packets, of which a read takes one; then writes ten of them at once.
const PACKETS: &str =
    "dd oflag=direct status=none </dev/null; for i in 0 1 2 3 4 5 6 7 8 9; do echo line $i; done";

#[tokio::test]
async fn s02_s13_a_pipe_of_packets_loses_nothing() {
    let sandbox = Sandbox::start();
    let all: String = (0..10).map(|i| format!("line {i}\n")).collect();
    for _ in 0..40 {
        assert_eq!(sandbox.stdout("a", PACKETS).await, all);
    }
    let stream = sandbox.stream(json!({ "command": PACKETS })).await.rest().await;
    assert_eq!(stream.0, all);
}

#[tokio::test]
async fn s02_s13_whatever_a_program_makes_of_its_stdout_loses_nothing() {
    let sandbox = Sandbox::start();
    let (command, all) = (format!("python3 - <<'E'\n{}\nE", common::ODD_PIPES), common::odd_pipes_output());
    for _ in 0..5 {
        let done = sandbox.exec("a", &command).await;
        assert_eq!((done["stderr"].as_str(), done["exitCode"].as_i64()), (Some(""), Some(0)));
        assert!(done["stdout"] == all, "{}", done["stdout"]);
        let stream = sandbox.stream(json!({ "command": command })).await.rest().await;
        assert!(stream.0 == all, "{}", stream.0);
    }
    assert_eq!(sandbox.stdout("a", "echo after").await, "after\n");
}

#[tokio::test]
async fn s02_a_character_is_never_split_over_two_events() {
    let sandbox = Sandbox::start();
    // The second half is written only when the first has been read, so they cannot arrive together.
    let fifo = sandbox.dir.path().join("go");
    let command =
        format!("mkfifo {0}; printf 'a\\316'; echo >&2 half; read x < {0}; printf '\\273b'", fifo.display());
    let mut events = sandbox.stream(json!({ "command": command })).await;
    let mut stdout = String::new();
    loop {
        let (_, event) = events.next().await.unwrap();
        match event["type"].as_str().unwrap() {
            "stdout" => stdout.push_str(event["data"].as_str().unwrap()),
            "stderr" => break,
            _ => {}
        }
    }
    std::fs::write(&fifo, "go\n").unwrap();
    let (rest, _, last) = events.rest().await;
    assert_eq!(stdout + &rest, "aλb");
    assert_eq!(last["exitCode"], 0);
}

#[tokio::test]
async fn s08_one_session_runs_in_order_and_sessions_run_in_parallel() {
    let sandbox = Sandbox::start();
    let fifo = sandbox.dir.path().join("gate");
    sandbox.exec("a", &format!("mkfifo {}", fifo.display())).await;
    let blocked = format!("read x < {}; echo $x >> order", fifo.display());
    let first = sandbox.exec("a", &blocked);
    let second = sandbox.exec("a", "echo 2 >> order");
    let others = async {
        assert_eq!(sandbox.stdout("b", "echo free").await, "free\n");
        let (_, info) = sandbox.call("GET", "/sessions/a", None).await;
        assert_eq!((info["busy"].clone(), info["waiting"].clone()), (json!(true), json!(1)));
        tokio::fs::write(&fifo, "1\n").await.unwrap();
    };
    tokio::join!(first, second, others);
    assert_eq!(sandbox.stdout("a", "cat order").await, "1\n2\n");
}

#[tokio::test]
async fn s08_the_queue_is_bounded_and_deleting_fails_what_waits() {
    let sandbox = Sandbox::start();
    let mut running = sandbox.stream(json!({ "command": "echo on; sleep 1000", "sessionId": "q" })).await;
    while running.next().await.unwrap().1["type"] != "stdout" {}
    let queued = futures_util::future::join_all((0..256).map(|n| {
        let request = json!({ "command": format!("echo {n}"), "sessionId": "q" });
        let sandbox = &sandbox;
        async move { sandbox.call("POST", "/exec", Some(&request)).await }
    }));
    let then = async {
        let request = json!({ "command": "echo late", "sessionId": "q" });
        let (status, error) = sandbox.call("POST", "/exec", Some(&request)).await;
        assert_eq!((status, &error["code"]), (StatusCode::CONFLICT, &json!("RESOURCE_BUSY")));
        assert_eq!(error["context"]["waiting"], 256);
        assert_eq!(error["context"]["sessionId"], "q");
        let (status, answer) = sandbox.call("DELETE", "/sessions/q", None).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    };
    let (queued, ()) = tokio::join!(queued, then);
    for (status, error) in queued {
        assert_eq!((status, &error["code"]), (StatusCode::GONE, &json!("SESSION_DESTROYED")));
    }
    let (_, _, last) = running.rest().await;
    assert_eq!(last["detail"]["code"], "SESSION_DESTROYED");
    assert_eq!(sandbox.stdout("q", "echo new").await, "new\n");
}

#[tokio::test]
async fn s08_queue_timeout_bounds_the_wait_and_timeout_begins_with_the_command() {
    let sandbox = Sandbox::start();
    let mut running = sandbox.stream(json!({ "command": "echo on; sleep 0.3" })).await;
    while running.next().await.unwrap().1["type"] != "stdout" {}
    let (status, error) =
        sandbox.call("POST", "/exec", Some(&json!({ "command": "true", "queueTimeout": 20 }))).await;
    assert_eq!((status, &error["code"]), (StatusCode::CONFLICT, &json!("RESOURCE_BUSY")));
    let patient = sandbox.exec_with(json!({ "command": "echo late", "timeout": 250 })).await;
    assert_eq!(patient["stdout"], "late\n");
}

#[tokio::test]
async fn s10_sessions_are_created_described_and_deleted() {
    let sandbox = Sandbox::start();
    let cwd = sandbox.dir.path().join("made/for/it");
    let request = json!({ "id": "prod", "env": { "NODE_ENV": "production" }, "cwd": cwd });
    let (status, info) = sandbox.call("POST", "/sessions", Some(&request)).await;
    assert_eq!((status, &info["id"]), (StatusCode::CREATED, &json!("prod")));
    assert_eq!(
        sandbox.stdout("prod", "echo $PWD $NODE_ENV").await,
        format!("{} production\n", cwd.display())
    );
    let (status, error) = sandbox.call("POST", "/sessions", Some(&request)).await;
    assert_eq!((status, &error["code"]), (StatusCode::CONFLICT, &json!("SESSION_ALREADY_EXISTS")));

    let (status, made_up) = sandbox.call("POST", "/sessions", Some(&json!({}))).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(made_up["cwd"], format!("{}/workspace", sandbox.dir.path().display()));
    let (_, list) = sandbox.call("GET", "/sessions", None).await;
    let ids: Vec<_> = list["sessions"].as_array().unwrap().iter().map(|s| s["id"].clone()).collect();
    assert_eq!(ids, [json!("prod"), made_up["id"].clone()]);

    for (method, path) in [("GET", "/sessions/nobody"), ("DELETE", "/sessions/nobody")] {
        let (status, error) = sandbox.call(method, path, None).await;
        assert_eq!(
            (status, &error["code"]),
            (StatusCode::NOT_FOUND, &json!("SESSION_NOT_FOUND")),
            "{method}"
        );
    }
    sandbox.exec("default", "true").await;
    let (status, _) = sandbox.call("DELETE", "/sessions/default", None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = sandbox.call("DELETE", "/sessions/prod", None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        sandbox.stdout("prod", "echo \"$NODE_ENV\"").await,
        "\n",
        "the id is free and names a new session"
    );
}

#[tokio::test]
async fn s10_a_session_that_only_files_processes_or_code_use_is_one() {
    let sandbox = Sandbox::start();
    let absolute = sandbox.dir.path().join("f").display().to_string();
    for (session, path, mut request) in [
        ("relative", "/files/exists", json!({ "path": "f" })),
        ("absolute", "/files/exists", json!({ "path": absolute })),
        ("process", "/processes", json!({ "command": "true" })),
        ("run", "/code/run", json!({ "code": "1", "language": "javascript" })),
        ("context", "/code/contexts", json!({ "language": "javascript" })),
        ("git", "/git/checkout", json!({ "repoUrl": "http://127.0.0.1:1/none.git" })),
    ] {
        request["sessionId"] = json!(session);
        sandbox.call("POST", path, Some(&request)).await;
        let (status, found) = sandbox.call("GET", &format!("/sessions/{session}"), None).await;
        assert_eq!((status, &found["id"]), (StatusCode::OK, &json!(session)), "{path}");
        let (status, _) = sandbox.call("DELETE", &format!("/sessions/{session}"), None).await;
        assert_eq!(status, StatusCode::OK, "{path}");
    }
    let bad = json!({ "path": "", "sessionId": "bad" });
    assert_eq!(sandbox.call("POST", "/files/exists", Some(&bad)).await.0, StatusCode::BAD_REQUEST);
    sandbox.call("POST", "/files/exists", Some(&json!({ "path": "f", "sessionId": "default" }))).await;
    let (_, list) = sandbox.call("GET", "/sessions", None).await;
    assert_eq!(
        list["sessions"],
        json!([]),
        "a refused call makes none, and no shell is started for the default one"
    );
}

#[tokio::test]
async fn s11_variables_reach_every_session_from_its_next_command() {
    let sandbox = Sandbox::start();
    sandbox.call("POST", "/sessions", Some(&json!({ "id": "own", "env": { "A": "own" } }))).await;
    sandbox.exec("other", "true").await;
    let (status, _) = sandbox.call("PATCH", "/env", Some(&json!({ "env": { "A": "all", "B": "b" } }))).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(sandbox.stdout("own", "echo $A $B").await, "own b\n");
    assert_eq!(sandbox.stdout("other", "echo $A $B").await, "all b\n");
    assert_eq!(sandbox.stdout("later", "echo $A $B").await, "all b\n");
    sandbox.call("PATCH", "/sessions/other/env", Some(&json!({ "env": { "A": "mine", "B": null } }))).await;
    assert_eq!(sandbox.stdout("other", "echo $A ${B-unset}").await, "mine unset\n");
    assert_eq!(sandbox.stdout("later", "echo $A $B").await, "all b\n");
}

#[tokio::test]
async fn s12_the_same_exec_id_runs_once() {
    let sandbox = Sandbox::start();
    let request = json!({ "command": "echo x >> ran; cat ran", "execId": "once" });
    let (first, second) =
        tokio::join!(sandbox.exec_with(request.clone()), sandbox.exec_with(request.clone()));
    let third = sandbox.exec_with(request.clone()).await;
    assert_eq!(
        (&first["stdout"], &second["stdout"], &third["stdout"]),
        (&json!("x\n"), &json!("x\n"), &json!("x\n"))
    );
    for (field, value) in [
        ("command", json!("other")),
        ("stdin", json!("x")),
        ("env", json!({ "A": "1" })),
        ("cwd", json!("/")),
        ("timeout", json!(1000)),
        ("sessionId", json!("s")),
        ("fresh", json!(true)),
    ] {
        let mut other = request.clone();
        other[field] = value;
        let (status, error) = sandbox.call("POST", "/exec", Some(&other)).await;
        assert_eq!(
            (status, &error["code"]),
            (StatusCode::CONFLICT, &json!("EXEC_ALREADY_EXISTS")),
            "{field}"
        );
    }
}

#[tokio::test]
async fn s02_a_base64_stream_holds_no_byte_back() {
    let sandbox = Sandbox::start();
    let command = json!({ "command": "printf a; sleep 1000", "execId": "b", "encoding": "base64" });
    let mut events = sandbox.stream(command).await;
    assert_eq!(events.next().await.unwrap().1["type"], "start");
    let (id, event) = events.next().await.unwrap();
    assert_eq!((id.as_str(), event["data"].as_str()), ("1-0", Some("YQ==")));
    sandbox.call("POST", "/execs/b/cancel", None).await;
}

#[tokio::test]
async fn s10_a_description_is_as_of_the_last_command() {
    let sandbox = Sandbox::start();
    for directory in ["/tmp", "/usr", "/"].iter().cycle().take(60) {
        // A large state takes the shell a moment to hand over.
        sandbox.exec("d", &format!("cd {directory}; big=$(printf '%0500000d' $RANDOM)")).await;
        let (_, info) = sandbox.call("GET", "/sessions/d", None).await;
        assert_eq!(info["cwd"], *directory);
        let (_, list) = sandbox.call("GET", "/sessions", None).await;
        assert_eq!(list["sessions"][0]["cwd"], *directory);
    }
}

#[tokio::test]
async fn s12_a_stream_resumes_without_a_gap_or_a_repeat() {
    let sandbox = Sandbox::start();
    let fifo = sandbox.dir.path().join("go");
    let command = format!("mkfifo {0}; echo λ one; echo err >&2; read x < {0}; echo two", fifo.display());
    let mut events = sandbox.stream(json!({ "command": command, "execId": "s" })).await;
    let (mut last_id, mut stdout, mut stderr) = (String::new(), String::new(), String::new());
    while stderr.is_empty() || stdout.is_empty() {
        let (id, event) = events.next().await.unwrap();
        last_id = id;
        match event["type"].as_str().unwrap() {
            "stdout" => stdout.push_str(event["data"].as_str().unwrap()),
            "stderr" => stderr.push_str(event["data"].as_str().unwrap()),
            _ => {}
        }
    }
    assert_eq!(last_id, "7-4");
    // The connection is lost; the command goes on.
    drop(events);
    std::fs::write(&fifo, "go\n").unwrap();
    let (rest, err, last) = sandbox.resume("s", &last_id).await.rest().await;
    assert_eq!((stdout + &rest, stderr + &err), ("λ one\ntwo\n".to_owned(), "err\n".to_owned()));
    assert_eq!((&last["type"], &last["exitCode"]), (&json!("complete"), &json!(0)));
    // Finished, it can still be read: from anywhere, and as a whole.
    let (again, _, _) = sandbox.resume("s", "3-0").await.rest().await;
    assert_eq!(again, "one\ntwo\n");
    let (_, whole) = sandbox.call("GET", "/execs/s/result", None).await;
    assert_eq!(whole["stdout"], "λ one\ntwo\n");
}

#[tokio::test]
async fn s12_cancelling_is_explicit_and_kills() {
    let sandbox = Sandbox::start();
    let mut events =
        sandbox.stream(json!({ "command": "x=1; echo on; sleep 1000; touch evil", "execId": "c" })).await;
    while events.next().await.unwrap().1["type"] != "stdout" {}
    let (status, info) = sandbox.call("POST", "/execs/c/cancel", None).await;
    assert_eq!((status, &info["state"]), (StatusCode::OK, &json!("finished")));
    let (_, _, last) = events.rest().await;
    assert_eq!(last["detail"]["code"], "OPERATION_INTERRUPTED");
    assert_eq!(sandbox.stdout("default", "ls").await, "");
    let (status, error) = sandbox.call("POST", "/execs/nobody/cancel", None).await;
    assert_eq!((status, &error["code"]), (StatusCode::NOT_FOUND, &json!("EXEC_NOT_FOUND")));
}

#[tokio::test]
async fn s06_a_timeout_is_an_error_with_what_was_written() {
    let sandbox = Sandbox::start();
    sandbox.exec("t", "kept=1").await;
    let request =
        json!({ "command": "echo begun; sleep 1000; touch evil", "sessionId": "t", "timeout": 100 });
    let (status, error) = sandbox.call("POST", "/exec", Some(&request)).await;
    assert_eq!((status, &error["code"]), (StatusCode::REQUEST_TIMEOUT, &json!("COMMAND_TIMEOUT")));
    assert_eq!(error["context"]["stdout"], "begun\n");
    assert_eq!(error["context"]["exitCode"], 124);
    assert_eq!(error["context"]["timeout"], 100);
    assert!(error["message"].as_str().unwrap().contains("timeout"));
    assert_eq!(sandbox.stdout("t", "echo $kept; ls").await, "1\n");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn s13_output_has_a_bound_and_memory_stays_flat() {
    let sandbox = Sandbox::start();
    sandbox.exec("default", "true").await;
    let before = resident_kib();
    let request = json!({ "command": "head -c 1000000000 /dev/zero | tr '\\0' x; echo end >&2", "maxOutputBytes": 1000 });
    let result = sandbox.exec_with(request).await;
    assert_eq!(result["stdout"], "x".repeat(1000));
    assert_eq!(result["truncated"], json!({ "stdout": 999_999_000u64 }));
    assert_eq!(result["stderr"], "end\n");
    assert!(resident_kib().saturating_sub(before) < 32 << 10, "1 GB of output grew the agent");
}

#[tokio::test]
async fn s13_long_output_keeps_its_first_and_last_half() {
    let sandbox = Sandbox::start();
    let all: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    let whole = sandbox.exec("default", "seq 300000").await;
    assert_eq!(whole["stdout"], all);
    assert!(whole.get("truncated").is_none());
    let cut = sandbox.exec_with(json!({ "command": "seq 300000", "maxOutputBytes": 1_000_000 })).await;
    let expected = format!("{}{}", &all[..500_000], &all[all.len() - 500_000..]);
    assert_eq!(cut["stdout"], expected);
    assert_eq!(cut["truncated"]["stdout"], all.len() - 1_000_000);
    // Base64 of the same is one decodable text.
    let raw = sandbox
        .exec_with(json!({ "command": "seq 300000", "maxOutputBytes": 1_000_000, "encoding": "base64" }))
        .await;
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(raw["stdout"].as_str().unwrap()).unwrap();
    assert_eq!(bytes, expected.as_bytes());
}

#[tokio::test]
async fn s13_a_stream_that_is_read_loses_nothing() {
    let sandbox = Sandbox::start();
    let mut events = sandbox.stream(json!({ "command": "seq 3000000" })).await;
    let (stdout, _, last) = events.rest().await;
    assert_eq!(last["exitCode"], 0);
    assert!(stdout.len() == 22_888_896, "{} of 22888896 bytes came", stdout.len());
    assert!(stdout.ends_with("\n2999999\n3000000\n"));
}

#[tokio::test]
async fn s09_a_fresh_shell_shares_nothing() {
    let sandbox = Sandbox::start();
    sandbox.exec("default", "x=1; cd /").await;
    let fresh = sandbox.exec_with(json!({ "command": "echo ${x-none} $PWD; y=2", "fresh": true })).await;
    assert_eq!(fresh["stdout"], format!("none {}/workspace\n", sandbox.dir.path().display()));
    assert!(fresh.get("sessionId").is_none());
    let again = sandbox.exec_with(json!({ "command": "echo ${y-none}", "fresh": true })).await;
    assert_eq!(again["stdout"], "none\n");
}

/// However the command ends its shell; and nothing of the agent's stays for them.
#[tokio::test]
async fn s09_what_a_fresh_shell_leaves_in_the_background_lives_on() {
    for sandbox in [Sandbox::start(), Sandbox::start_in_cgroup()] {
        let mut left = Vec::new();
        for _ in 0..10 {
            for end in ["", "exit 0", "exec true", "kill -9 $$", "(setsid sleep 1001 & echo $!)"] {
                let command = format!("sleep 1001 >/dev/null 2>&1 & echo $!; {end}");
                let ran = sandbox.exec_with(json!({ "command": command, "fresh": true })).await;
                left.extend(
                    ran["stdout"].as_str().unwrap().split_whitespace().map(|pid| pid.parse::<i32>().unwrap()),
                );
            }
        }
        let late = json!({ "command": "sleep 1001 & echo $!; wait", "fresh": true, "timeout": 300 });
        let (_, late) = sandbox.call("POST", "/exec", Some(&late)).await;
        let ended: i32 = late["context"]["stdout"].as_str().unwrap().trim().parse().unwrap();
        assert_eq!(left.len(), 60);
        let lives = |pid: i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains("(sleep)") && !stat.contains(") Z ")
        };
        assert!(!lives(ended), "a timeout ends all that its command has started");
        let groups = sandbox.groups();
        assert!(groups <= 3, "{groups} groups are left");
        for pid in left {
            assert!(lives(pid), "{pid}");
            rustix::process::kill_process(
                rustix::process::Pid::from_raw(pid).unwrap(),
                rustix::process::Signal::KILL,
            )
            .unwrap();
        }
    }
}

#[tokio::test]
async fn x02_bad_input_names_its_field_and_changes_nothing() {
    let sandbox = Sandbox::start();
    for (path, body, field) in [
        ("/exec", json!({}), "command"),
        ("/exec", json!({ "command": "a\u{0}b" }), "command"),
        ("/exec", json!({ "command": "true", "timeout": -1 }), "timeout"),
        ("/exec", json!({ "command": "true", "env": { "A=B": "x" } }), "env.A=B"),
        ("/exec", json!({ "command": "true", "fresh": true, "sessionId": "a" }), "fresh"),
        ("/sessions", json!({ "id": "a/b" }), "id"),
        ("/sessions", json!({ "id": "x", "cwd": "" }), "cwd"),
        ("/sessions", json!({ "id": "x", "env": 7 }), "env"),
    ] {
        let (status, error) = sandbox.call("POST", path, Some(&body)).await;
        assert_eq!(
            (status, &error["code"]),
            (StatusCode::BAD_REQUEST, &json!("VALIDATION_FAILED")),
            "{body}"
        );
        assert_eq!(error["context"]["validationErrors"][0]["field"], field, "{body}");
        let operation = if path == "/exec" { "exec" } else { "createSession" };
        assert_eq!(error["operation"], operation, "{body}");
    }
    let (status, error) = sandbox.call("POST", "/exec", Some(&json!({ "command": " " }))).await;
    assert_eq!((status, &error["code"]), (StatusCode::BAD_REQUEST, &json!("INVALID_COMMAND")));
    let (_, list) = sandbox.call("GET", "/sessions", None).await;
    assert_eq!(list["sessions"], json!([]), "nothing was made on the way to a refusal");
}

#[tokio::test]
async fn l08_a_shell_that_a_command_ended_is_told_to_the_server() {
    let sandbox = Sandbox::start();
    sandbox.exec("default", "true").await;
    sandbox.exec("default", "exit 7").await;
    sandbox.exec("default", "kill -9 $$").await;
    sandbox.exec_with(json!({ "command": "exit 8", "fresh": true })).await;
    let (status, events) = sandbox.call("GET", "/agent/events?after=0", None).await;
    assert_eq!(status, StatusCode::OK);
    let told: Vec<_> =
        events.as_array().unwrap().iter().map(|e| (&e["kind"], &e["detail"]["sessionId"])).collect();
    assert_eq!(told, [(&json!("shellRestarted"), &json!("default")); 2], "{events}");
    assert!(events[0]["reason"].as_str().unwrap().contains("exit code 7"), "{events}");
    assert!(events[1]["reason"].as_str().unwrap().contains("signal 9"), "{events}");
}

#[tokio::test]
async fn s06_endless_output_does_not_keep_its_timeout_or_others_from_running() {
    let sandbox = Sandbox::start();
    sandbox.exec("other", "true").await;
    let endless =
        json!({ "command": "yes & yes", "sessionId": "loud", "timeout": 1000, "maxOutputBytes": 1000 });
    let (answer, others) = tokio::join!(sandbox.call("POST", "/exec", Some(&endless)), async {
        let mut answered = 0;
        let end = tokio::time::Instant::now() + std::time::Duration::from_millis(800);
        while tokio::time::Instant::now() < end {
            sandbox.exec("other", "true").await;
            answered += 1;
        }
        answered
    });
    assert_eq!((answer.0, &answer.1["code"]), (StatusCode::REQUEST_TIMEOUT, &json!("COMMAND_TIMEOUT")));
    assert!(others > 3, "another session had {others} answers meanwhile");
}

#[tokio::test]
async fn s14_programs_of_a_session_start_as_of_its_last_completed_command() {
    let sandbox = Sandbox::start();
    let workspace = sandbox.dir.path().join("workspace").display().to_string();
    let (cwd, env) = sandbox.start_point(None).await;
    assert_eq!((cwd.as_str(), env["LANG"].as_str()), (workspace.as_str(), "C.UTF-8"));
    assert_eq!(sandbox.start_point(Some("a")).await, (cwd, env), "a session that does not exist yet");

    sandbox.exec("a", "cd /usr; export A=exported; plain=1; f() { echo f; }; export -f f; unset LANG").await;
    let (cwd, env) = sandbox.start_point(Some("a")).await;
    assert_eq!((cwd.as_str(), env["A"].as_str()), ("/usr", "exported"));
    assert!(env.contains_key("BASH_FUNC_f%%") && !env.contains_key("plain") && !env.contains_key("LANG"));
    assert!(!sandbox.start_point(None).await.1.contains_key("A"), "it is the session's alone");

    // A command that runs, or was killed, is none that completed.
    let mut stream = sandbox
        .stream(json!({ "command": "cd /; export A=running; echo; sleep 100", "sessionId": "a" }))
        .await;
    let exec_id = stream.next().await.unwrap().1["execId"].as_str().unwrap().to_owned();
    stream.next().await.unwrap();
    let (cwd, env) = sandbox.start_point(Some("a")).await;
    assert_eq!((cwd.as_str(), env["A"].as_str()), ("/usr", "exported"));
    sandbox.call("POST", &format!("/execs/{exec_id}/cancel"), None).await;
    stream.rest().await;
    assert_eq!(sandbox.start_point(Some("a")).await.0, "/usr");
}

#[tokio::test]
async fn s11_variables_that_were_set_since_reach_programs_at_once() {
    let sandbox = Sandbox::start();
    sandbox.exec("a", "export OWN=session; export PATH=$PATH:/own").await;
    sandbox.call("PATCH", "/sessions/a/env", Some(&json!({ "env": { "GIVEN": "1" } }))).await;
    let all =
        json!({ "env": { "NEW": "2", "OWN": "sandbox", "GIVEN": "sandbox", "PATH": "/p", "TERM": null } });
    sandbox.call("PATCH", "/env", Some(&all)).await;
    let seen = async |session| {
        let (_, env) = sandbox.start_point(session).await;
        ["NEW", "OWN", "GIVEN", "TERM"].map(|name| env.get(name).cloned().unwrap_or_default()).join(" ")
    };
    assert_eq!(seen(None).await, "2 sandbox sandbox ");
    assert_eq!(seen(Some("a")).await, "2 session 1 ", "before the next command");
    assert!(sandbox.start_point(Some("a")).await.1["PATH"].ends_with(":/own"), "the session's own stands");
    assert_eq!(sandbox.stdout("a", "echo \"$NEW $OWN $GIVEN $TERM\"").await, "2 session 1 \n");
}

#[tokio::test]
async fn s10_a_spare_shell_becomes_the_first_sessions_and_another_follows_a_further_one() {
    let sandbox = Sandbox::start_in_cgroup();
    let spare = sandbox.processes();
    assert_eq!(spare.len(), 1, "begun with the agent");
    let home = sandbox.dir.path().join("home");
    let request = json!({ "id": "a", "env": { "A": "1" }, "cwd": home });
    sandbox.call("POST", "/sessions", Some(&request)).await;
    let seen = sandbox.stdout("a", "echo $$ $A $PWD; pwd -P").await;
    assert_eq!(seen, format!("{} 1 {home}\n{home}\n", spare[0], home = home.display()));
    // Behind its answer another one comes up, and the default session takes it and leaves none.
    let next = sandbox.until_processes(2).await.into_iter().find(|pid| *pid != spare[0]).unwrap();
    assert_eq!(sandbox.stdout("default", "echo $$ $A $PWD").await.split(' ').next(), Some(&*next));
    assert_eq!(sandbox.stdout("default", "echo $A").await, "\n");
    assert_eq!(sandbox.processes().len(), 2);
}

#[tokio::test]
async fn s10_a_spare_shell_that_is_in_another_place_or_dead_is_nobodys() {
    let sandbox = Sandbox::start_in_cgroup();
    let spare = sandbox.processes().remove(0);
    let workspace = sandbox.dir.path().join("workspace");
    std::fs::remove_dir(&workspace).unwrap();
    std::fs::create_dir(&workspace).unwrap();
    assert_eq!(sandbox.stdout("a", "echo x > here; pwd -P").await, format!("{}\n", workspace.display()));
    assert!(workspace.join("here").exists(), "in the directory that has the name now");
    assert_ne!(sandbox.stdout("a", "echo $$").await, format!("{spare}\n"));

    let sandbox = Sandbox::start_in_cgroup();
    let spare = sandbox.processes().remove(0);
    let killed = rustix::process::Pid::from_raw(spare.parse().unwrap()).unwrap();
    rustix::process::kill_process(killed, rustix::process::Signal::KILL).unwrap();
    let ran = sandbox.exec("a", "echo $$").await;
    assert_ne!(ran["stdout"], format!("{spare}\n"));
    assert!(ran.get("shellRestarted").is_none(), "the session lost nothing: {ran}");
}

#[tokio::test(start_paused = true)]
async fn s10_a_spare_shell_that_nobody_wants_is_ended() {
    let sandbox = Sandbox::start_in_cgroup();
    assert_eq!(sandbox.processes().len(), 1);
    tokio::time::sleep(std::time::Duration::from_secs(59)).await;
    assert_eq!(sandbox.processes().len(), 1);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    tokio::time::resume();
    sandbox.until_processes(0).await;
    assert_eq!(sandbox.stdout("default", "echo here").await, "here\n");
}

/// The shell itself goes on; what the agent starts says which variable it is.
#[tokio::test]
async fn x02_a_variable_that_no_program_can_be_started_with_is_named() {
    let sandbox = Sandbox::start();
    for (session, export) in [
        ("one", "export BIG=$(printf '%0200000d' 1)"),
        ("all", "for i in {1..30}; do export BIG$i=$(printf '%0100000d' 1); done"),
    ] {
        assert_eq!(sandbox.exec(session, export).await["exitCode"], 0);
        assert_eq!(sandbox.exec(session, "echo on").await["stdout"], "on\n");
        for (path, body) in [
            ("/processes", json!({ "command": "true", "sessionId": session })),
            ("/code/run", json!({ "code": "1", "language": "python", "sessionId": session })),
            ("/git/checkout", json!({ "repoUrl": "https://localhost/r.git", "sessionId": session })),
        ] {
            let (status, error) = sandbox.call("POST", path, Some(&body)).await;
            if path == "/code/run" && status == 200 {
                // An interpreter that was up already takes its variables by message.
                continue;
            }
            assert_eq!(status, 400, "{path}: {error}");
            let field = error["context"]["validationErrors"][0]["field"].as_str().unwrap();
            assert!(field.starts_with("env.BIG"), "{path}: {error}");
        }
    }
}

/// What is sent to a command's stdin, and what the agent answers.
async fn feed(
    sandbox: &Sandbox,
    id: &str,
    query: &str,
    bytes: &'static [u8],
) -> (StatusCode, serde_json::Value) {
    let request = axum::http::Request::post(format!("/execs/{id}/stdin{query}")).body(bytes.into()).unwrap();
    let answer = sandbox.request(request).await;
    let status = answer.status();
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn s02_an_interactive_command_takes_bytes_as_they_come() {
    let sandbox = Sandbox::start();
    let wanted = json!({ "command": "read a; echo \"got $a\"; cat", "interactive": true, "execId": "e", "sessionId": "s" });
    let mut events = sandbox.stream(wanted).await;
    assert_eq!(events.next().await.unwrap().1["type"], "start");
    assert_eq!(feed(&sandbox, "e", "?offset=0", b"one\n").await.0, StatusCode::OK);
    // It answers before the rest is there: nothing waits for the end of stdin.
    assert_eq!(events.next().await.unwrap().1["data"], "got one\n");
    // Sent again, as where an answer was lost: what it has taken is left out.
    assert_eq!(feed(&sandbox, "e", "?offset=0", b"one\ntwo\xff\0").await.0, StatusCode::OK);
    let (status, gap) = feed(&sandbox, "e", "?offset=100", b"x").await;
    assert_eq!(
        (status, &gap["context"]["validationErrors"][0]["field"]),
        (StatusCode::BAD_REQUEST, &json!("offset")),
        "{gap}"
    );
    assert_eq!(feed(&sandbox, "e", "?end=true", b"").await.0, StatusCode::OK);
    let (stdout, _, end) = events.rest().await;
    assert_eq!((stdout.as_str(), &end["exitCode"]), ("two\u{fffd}\0", &json!(0)), "{end}");
    for query in ["", "?end=true"] {
        let (status, error) = feed(&sandbox, "e", query, b"late").await;
        assert_eq!((status, &error["code"]), (StatusCode::GONE, &json!("EXEC_STDIN_CLOSED")), "{error}");
    }
}

#[tokio::test]
async fn s02_what_writes_to_a_command_that_reads_nothing_is_let_go_at_its_end() {
    let sandbox = Sandbox::start();
    let wanted =
        json!({ "command": "read a; sleep 0.1", "interactive": true, "execId": "e", "sessionId": "s" });
    let mut events = sandbox.stream(wanted).await;
    events.next().await.unwrap();
    // Behind it in the queue; its stdin is written to before it begins.
    let behind = json!({ "command": "cat", "interactive": true, "execId": "b", "sessionId": "s" });
    let mut behind = sandbox.stream(behind).await;
    static MUCH: &[u8] = &[b'\n'; 300_000];
    let (stuck, early, end) = tokio::join!(
        feed(&sandbox, "e", "", MUCH),
        feed(&sandbox, "b", "?end=true", b"early"),
        events.rest()
    );
    assert_eq!(stuck.1["code"], "EXEC_STDIN_CLOSED", "{}", stuck.1);
    assert_eq!((early.0, &end.2["exitCode"]), (StatusCode::OK, &json!(0)));
    assert_eq!(behind.rest().await.0, "early");
    // One that never begins.
    let long = json!({ "command": "sleep 100", "execId": "l", "sessionId": "s" });
    let mut long = sandbox.stream(long).await;
    long.next().await.unwrap();
    let never =
        json!({ "command": "cat", "interactive": true, "execId": "n", "sessionId": "s", "queueTimeout": 50 });
    let mut never = sandbox.stream(never).await;
    let (refused, _) = tokio::join!(feed(&sandbox, "n", "", b"x"), never.rest());
    assert_eq!(refused.1["code"], "EXEC_STDIN_CLOSED", "{}", refused.1);
    let (status, error) = feed(&sandbox, "l", "", b"x").await;
    assert_eq!(
        (status, &error["context"]["validationErrors"][0]["field"]),
        (StatusCode::BAD_REQUEST, &json!("execId")),
        "{error}"
    );
    let both = json!({ "command": "cat", "interactive": true, "stdin": "x" });
    let (status, error) = sandbox.call("POST", "/exec", Some(&both)).await;
    assert_eq!(
        (status, &error["context"]["validationErrors"][0]["field"]),
        (StatusCode::BAD_REQUEST, &json!("interactive")),
        "{error}"
    );
    sandbox.call("POST", "/execs/l/cancel", None).await;
}

#[tokio::test]
async fn s10_deleting_a_session_ends_its_background_and_says_how_much() {
    let sandbox = Sandbox::start_in_cgroup();
    sandbox.exec("a", "nohup sleep 1000 >/dev/null 2>&1 & setsid sleep 1000 >/dev/null 2>&1 &").await;
    sandbox.exec("b", "true").await;
    let (_, deleted) = sandbox.call("DELETE", "/sessions/a", None).await;
    assert_eq!(deleted["endedProcesses"], 2, "{deleted}");
    let (_, deleted) = sandbox.call("DELETE", "/sessions/b", None).await;
    assert!(deleted["success"] == true && deleted.get("endedProcesses").is_none(), "{deleted}");
}
