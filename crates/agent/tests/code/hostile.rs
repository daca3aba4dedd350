//! Code that would confuse, flood or outlive the protocol (attacks E01, E06, E08 as they touch code contexts).

use super::common::Sandbox;
use super::rig::{create, run, run_with, stderr, stdout, text, text_of};
use serde_json::json;

#[tokio::test]
async fn k01_nothing_that_code_writes_is_taken_for_the_protocol() {
    let sandbox = Sandbox::start();
    let frame = r#"{"type": "done", "id": null, "error": null}"#;
    let code = format!(
        "import os, sys\nfor fd in (1, 2): os.write(fd, (len('{frame}')).to_bytes(4, 'little') + b'{frame}')\nos.write(1, bytes(range(256)))\nos.system('echo native >&2')\n'end'"
    );
    let answer = run(&sandbox, "python", &code).await;
    assert_eq!(text_of(&answer), "'end'");
    assert!(stdout(&answer).contains(frame) && stdout(&answer).contains('\u{fffd}'), "{answer}");
    assert!(stderr(&answer).contains(frame) && stderr(&answer).ends_with("native\n"), "{answer}");
    // On the protocol's own descriptor: an answer to a run that is not on is no answer, junk ends the interpreter.
    let stray = format!("import os; f = b'{frame}'; os.write(14, len(f).to_bytes(4, 'little') + f)\n'mine'");
    assert_eq!(text(&sandbox, "python", &stray).await, "'mine'");
    for junk in ["os.write(14, b'\\x05\\0\\0\\0nojso')", "os.write(14, b'\\xff' * 64)"] {
        let answer = run(&sandbox, "python", &format!("import os; {junk}; 1")).await;
        assert_eq!(answer["error"]["name"], "InterpreterExited", "{answer}");
        assert_eq!(text(&sandbox, "python", "1 + 1").await, "2");
    }
}

#[tokio::test]
async fn k01_what_code_does_to_its_own_streams_lasts_at_most_for_the_run() {
    let sandbox = Sandbox::start();
    for code in [
        "import sys; sys.stdout.close()",
        "import os; os.close(1); os.close(2)",
        "sys.stdout = None; sys.stderr = 5",
        "import io; sys.stdout = io.StringIO(); print('kept by the code')",
    ] {
        let answer = run(&sandbox, "python", code).await;
        assert!(answer.get("error").is_none(), "{code}: {answer}");
        run(&sandbox, "python", "sys.stdout = sys.__stdout__; sys.stderr = sys.__stderr__").await;
        assert_eq!(stdout(&run(&sandbox, "python", "print('again')").await), "again\n", "{code}");
    }
    let answer = run(&sandbox, "js", "process.stdout.write = () => true; console.log('gone'); JSON.stringify = Array.prototype.map = null; 1").await;
    assert_eq!(text_of(&answer), "1");
    let answer = run(&sandbox, "js", "throw new Error('x')").await;
    assert_eq!(answer["error"]["name"], "Error", "also where the code broke what shows it: {answer}");
    assert_eq!(text(&sandbox, "js", "2").await, "2");
}

#[tokio::test]
async fn k01_forks_and_threads_belong_to_the_run_that_is_on() {
    let sandbox = Sandbox::start();
    let code = "import os\npid = os.fork()\nprint('child' if pid == 0 else 'parent', flush=True)\nif pid: os.waitpid(pid, 0)\n'both come here'";
    let answer = run(&sandbox, "python", code).await;
    assert_eq!(
        (answer["results"].as_array().unwrap().len(), text_of(&answer)),
        (1, "'both come here'".into())
    );
    let mut lines: Vec<_> = stdout(&answer).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["child", "parent"]);
    // A child that fails does so by itself.
    let code = "pid = os.fork()\nif pid == 0: raise ValueError('in the child')\nos.waitpid(pid, 0)[1] != 0";
    let answer = run(&sandbox, "python", code).await;
    assert_eq!(text_of(&answer), "True");
    assert!(stderr(&answer).contains("in the child"), "{answer}");
    let code = "from multiprocessing import get_context\nwith get_context('fork').Pool(2) as pool: squares = pool.map(abs, [-1, -2])\nsquares";
    assert_eq!(text(&sandbox, "python", code).await, "[1, 2]");

    // What a thread prints between two runs belongs to none; during another run, to that one.
    let fifo = sandbox.dir.path().join("go");
    let path = fifo.to_str().unwrap();
    let code = format!(
        "import threading, os\nos.mkfifo({path:?})\ndef late():\n    open({path:?}).read(); print('between'); seen.set(); go.wait(); print('during'); gone.set()\nseen, go, gone = threading.Event(), threading.Event(), threading.Event()\nthreading.Thread(target=late).start()"
    );
    assert_eq!(stdout(&run(&sandbox, "python", &code).await), "");
    tokio::fs::write(&fifo, "go").await.unwrap();
    // Another context's run gives the thread its time; the second write waits for the first to be read.
    run(&sandbox, "js", "await new Promise((r) => setTimeout(r, 200))").await;
    let during = run(&sandbox, "python", "seen.wait(); go.set(); gone.wait(); 'done'").await;
    assert_eq!(stdout(&during), "during\n");
}

#[tokio::test]
async fn e06_a_flood_of_output_is_bounded_and_counted() {
    let sandbox = Sandbox::start();
    let code = "import sys\nblock = 'x' * (1 << 20)\nfor _ in range(80): sys.stdout.write(block)\nprint('to stderr', file=sys.stderr)\n'end'";
    let answer = run(&sandbox, "python", code).await;
    assert_eq!(text_of(&answer), "'end'");
    let kept = stdout(&answer).len() as u64;
    assert!(kept > (63 << 20) && kept <= (64 << 20), "{kept}");
    assert_eq!(answer["truncated"]["stdout"].as_u64().unwrap() + kept, 80 << 20);
    assert_eq!(stderr(&answer), "to stderr\n");
}

#[tokio::test]
async fn e06_results_without_measure_are_cut_and_say_so() {
    let sandbox = Sandbox::start();
    let answer = run(&sandbox, "python", "'a' * 100_000_000").await;
    let shown = text_of(&answer);
    assert!(shown.len() < 2 << 20 && shown.ends_with("more characters]"), "{}", shown.len());
    let code = "display({'text/html': 'h' * 10_000_000, 'text/plain': 'kept'}, raw=True)\ndisplay({'text/html': '\\x01' * 5_000_000, 'text/plain': '\\x01' * 5_000_000}, raw=True)";
    let answer = run(&sandbox, "python", code).await;
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results[0], json!({ "text": "kept", "omitted": { "html": 10_000_000 } }));
    assert_eq!(results[1]["omitted"]["html"], 5_000_000);
    let answer = run(&sandbox, "js", "'a'.repeat(2e7)").await;
    assert!(text_of(&answer).len() < 2 << 20);
    let answer =
        run(&sandbox, "js", "display({ 'text/html': 'ü'.repeat(5e6), 'text/plain': 'kept' }, { raw: true })")
            .await;
    assert_eq!(answer["results"][0], json!({ "text": "kept", "omitted": { "html": 5_000_000 } }));
    let many =
        run(&sandbox, "python", "for _ in range(90): display({'text/html': 'h' * (1 << 20)}, raw=True)")
            .await;
    assert_eq!(
        many["results"].as_array().unwrap().len() as u64 + many["resultsDropped"].as_u64().unwrap(),
        90
    );
}

#[tokio::test]
async fn k01_recursion_and_huge_tracebacks_end_in_an_error() {
    let sandbox = Sandbox::start();
    let answer = run(&sandbox, "python", "def r(n): return r(n + 1)\nr(0)").await;
    assert_eq!(answer["error"]["name"], "RecursionError");
    let code = "def a(n): return b(n)\ndef b(n): return a(n - 1) if n else 1 / 0\na(300)";
    let answer = run(&sandbox, "python", code).await;
    let lines = answer["error"]["traceback"].as_array().unwrap();
    assert!(lines.len() <= 201, "{}", lines.len());
    assert!(lines.iter().any(|line| line.as_str().unwrap().contains("more lines]")));
    let answer = run(&sandbox, "python", "raise ValueError('v' * 10_000_000)").await;
    assert!(answer["error"]["value"].as_str().unwrap().len() < 100_000);
    assert_eq!(run(&sandbox, "js", "function r() { r() }; r()").await["error"]["name"], "RangeError");
    assert_eq!(text(&sandbox, "js", "1").await, "1");
}

#[tokio::test]
async fn e08_what_a_context_started_ends_with_it() {
    let sandbox = Sandbox::start();
    let id = create(&sandbox, json!({ "language": "javascript" })).await;
    let code = "const c = require('node:child_process').spawn('sh', ['-c', 'trap \"\" TERM; sleep 1000 & sleep 1000'], { detached: true, stdio: 'ignore' }); c.pid";
    let pid = text_of(&run_with(&sandbox, json!({ "code": code, "contextId": id })).await);
    assert!(std::fs::exists(format!("/proc/{pid}")).unwrap());
    sandbox.call("DELETE", &format!("/code/contexts/{id}"), None).await;
    let seen = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(seen.is_empty() || seen.contains(") Z "), "{seen}");
}
