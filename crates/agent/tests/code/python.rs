//! What Python code does and shows.

use super::common::Sandbox;
use super::rig::{run, stderr, stdout, text};
use serde_json::json;

#[tokio::test]
async fn k01_python_keeps_variables_functions_and_imports() {
    let sandbox = Sandbox::start();
    let first = run(&sandbox, "python", "import math\nx = 20\ndef double(n): return n * 2").await;
    assert_eq!((&first["results"], &first["executionCount"]), (&json!([]), &json!(1)));
    let second = run(&sandbox, "python3", "print('to', 'stdout'); double(x) + math.floor(2.5)").await;
    assert_eq!(second["results"], json!([{ "text": "42" }]));
    assert_eq!((stdout(&second), &second["executionCount"]), ("to stdout\n".to_owned(), &json!(2)));
    assert_eq!(second["code"], "print('to', 'stdout'); double(x) + math.floor(2.5)");
}

#[tokio::test]
async fn k01_python_errors_have_name_value_traceback_and_line() {
    let sandbox = Sandbox::start();
    let answer = run(&sandbox, "python", "def f():\n    return 1 / 0\n\nf()").await;
    let error = &answer["error"];
    assert_eq!((&error["name"], &error["value"]), (&json!("ZeroDivisionError"), &json!("division by zero")));
    assert_eq!(error["lineNumber"], 2);
    let traceback: Vec<_> =
        error["traceback"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
    assert_eq!(traceback[0], "Traceback (most recent call last):");
    assert!(traceback.contains(&"    return 1 / 0"), "{traceback:?}");
    assert!(!traceback.iter().any(|line| line.contains("<sandcrab>")), "{traceback:?}");

    let syntax = run(&sandbox, "python", "ok = 1\nbad = )").await;
    assert_eq!(
        (&syntax["error"]["name"], &syntax["error"]["lineNumber"]),
        (&json!("SyntaxError"), &json!(2))
    );
    let called = run(&sandbox, "python", "\n\nf()").await;
    assert_eq!(called["error"]["lineNumber"], 3, "the line of this run's code");
    assert_eq!(text(&sandbox, "python", "1 + 1").await, "2", "an error ends nothing");
}

#[tokio::test]
async fn k01_python_awaits_at_the_top_level() {
    let sandbox = Sandbox::start();
    let code = "import asyncio\ntask = asyncio.create_task(asyncio.sleep(0.01, 'late'))\nawait asyncio.sleep(0)\n'now'";
    assert_eq!(text(&sandbox, "python", code).await, "'now'");
    assert_eq!(text(&sandbox, "python", "await task").await, "'late'");
    // Tasks go on between two runs.
    run(&sandbox, "python", "done = asyncio.Event()\nasync def set(): done.set()\nt = asyncio.create_task(set())\nawait asyncio.sleep(0)").await;
    assert_eq!(text(&sandbox, "python", "done.is_set()").await, "True");
}

#[tokio::test]
async fn k01_python_objects_show_themselves_in_every_form() {
    let sandbox = Sandbox::start();
    let code = r#"
class Rich:
    def __repr__(self): return "plain"
    def _repr_html_(self): return "<b>rich</b>"
    def _repr_png_(self): return b"\x89PNG"
    def _repr_jpeg_(self): return b"\xff\xd8"
    def _repr_svg_(self): return "<svg/>"
    def _repr_latex_(self): return "$x$"
    def _repr_markdown_(self): return "**x**"
    def _repr_javascript_(self): return "alert(1)"
    def _repr_json_(self): return {"a": [1, None]}
class Bundle:
    def _repr_mimebundle_(self, include, exclude):
        return {"text/plain": "a chart", "application/vnd.plotly.v1+json": {
            "data": [{"type": "bar", "y": [1, 2]}], "layout": {"title": {"text": "T"}}}}, {}
class Broken:
    def __repr__(self): return "still shown"
    def _repr_html_(self): raise ValueError("no")
display(Rich(), Broken())
display({"text/html": "<i>"}, raw=True)
Bundle()
"#;
    let answer = run(&sandbox, "python", code).await;
    let results = answer["results"].as_array().unwrap();
    assert_eq!(
        results[0],
        json!({ "text": "plain", "html": "<b>rich</b>", "png": "iVBORw==", "jpeg": "/9g=", "svg": "<svg/>",
            "latex": "$x$", "markdown": "**x**", "javascript": "alert(1)", "json": { "a": [1, null] } })
    );
    assert_eq!(results[1], json!({ "text": "still shown" }));
    assert_eq!(results[2], json!({ "html": "<i>" }));
    let chart = &results[3]["chart"];
    assert_eq!(
        (&chart["type"], &chart["title"], &chart["library"]),
        (&json!("bar"), &json!("T"), &json!("plotly"))
    );
    assert_eq!(chart["data"], json!([{ "type": "bar", "y": [1, 2] }]));
}

#[tokio::test]
async fn k01_python_values_that_json_cannot_hold_are_text() {
    let sandbox = Sandbox::start();
    let answer = run(&sandbox, "python", "{'a': [1, 2.5, None, 'x']}").await;
    assert_eq!(answer["results"][0]["json"], json!({ "a": [1, 2.5, null, "x"] }));
    for code in
        ["{'a': float('nan')}", "{'a': object}", "l = []; l.append(l); l", "{1: 2, (1, 2): 3}", "{b'a'}"]
    {
        let answer = run(&sandbox, "python", code).await;
        assert!(answer.get("error").is_none(), "{answer}");
        assert!(answer["results"][0].get("json").is_none(), "{answer}");
        assert!(answer["results"][0]["text"].is_string(), "{answer}");
    }
    // Half of a surrogate pair is no character.
    let answer =
        run(&sandbox, "python", "display({'text/html': '\\ud800'}, raw=True); print('\\u00fc')").await;
    assert_eq!(answer["results"][0]["html"], "\u{fffd}");
    assert_eq!(stdout(&answer), "ü\n");
    let failing =
        run(&sandbox, "python", "class B:\n  def __repr__(self): raise ValueError('no')\nB()").await;
    assert_eq!(failing["error"]["name"], "ValueError");
}

#[tokio::test]
async fn k01_python_input_is_at_its_end_and_exit_is_an_error() {
    let sandbox = Sandbox::start();
    assert_eq!(run(&sandbox, "python", "input('? ')").await["error"]["name"], "EOFError");
    run(&sandbox, "python", "kept = 1").await;
    for code in ["import sys; sys.exit(3)", "exit()", "raise SystemExit"] {
        let answer = run(&sandbox, "python", code).await;
        assert_eq!(answer["error"]["name"], "SystemExit", "{answer}");
        assert!(answer.get("contextRestarted").is_none());
    }
    assert_eq!(text(&sandbox, "python", "kept").await, "1");
}

#[tokio::test]
async fn k01_python_modules_of_the_working_directory_pickle_and_source_work() {
    let sandbox = Sandbox::start();
    let workspace = sandbox.dir.path().join("workspace");
    std::fs::write(workspace.join("mine.py"), "value = 7").unwrap();
    assert_eq!(text(&sandbox, "python", "import mine; mine.value").await, "7");
    let code = "import pickle, inspect\nclass C:\n    x = 1\npickle.loads(pickle.dumps(C())).x, __name__";
    assert_eq!(text(&sandbox, "python", code).await, "(1, '__main__')");
    run(&sandbox, "python", "def f():\n    return 'f'").await;
    assert!(text(&sandbox, "python", "inspect.getsource(f)").await.contains("return 'f'"));
    let warned = run(&sandbox, "python", "import warnings; warnings.warn('careful'); None").await;
    assert!(stderr(&warned).contains("careful"), "{warned}");
    assert_eq!(warned["results"], json!([]), "None is not shown");
    assert_eq!(
        run(&sandbox, "python", "1 + 1;").await["results"],
        json!([]),
        "nor what ends with a semicolon"
    );
    assert_eq!(run(&sandbox, "python", "").await["results"], json!([]));
}

#[tokio::test]
async fn k01_what_code_writes_between_two_runs_is_told_with_the_next() {
    let sandbox = Sandbox::start();
    let code = "import os, threading, time\ndef late():\n    while not os.path.exists('go'): time.sleep(0.001)\n    \
                print('late'); print('x' * 50_000)\n    open('done', 'w').close()\nthreading.Thread(target=late).start()\nprint('now')";
    let first = run(&sandbox, "python", code).await;
    assert_eq!((stdout(&first), first.get("lateOutput")), ("now\n".to_owned(), None));
    sandbox.exec("s", "touch go; until [ -e done ]; do :; done").await;
    let next = run(&sandbox, "python", "print('next')").await;
    assert_eq!(stdout(&next), "next\n", "it is not the next run's own");
    let late = &next["lateOutput"];
    assert_eq!(late["stdout"].as_str().unwrap().len(), 16 << 10, "{next}");
    assert_eq!(late["dropped"], 50_001 + 5 - (16 << 10));
    assert!(run(&sandbox, "python", "1").await.get("lateOutput").is_none(), "it was told already");
    let timer = "setTimeout(() => console.error('ticked'), 1); 1";
    if stderr(&run(&sandbox, "js", timer).await).contains("ticked") {
        // It came while that run was on.
        return;
    }
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let next = run(&sandbox, "js", "1").await;
        if let Some(late) = next.get("lateOutput") {
            assert_eq!(late, &json!({ "stderr": "ticked\n" }));
            break;
        }
        // It may have come while the run was on.
        if stderr(&next).contains("ticked") {
            break;
        }
        assert!(std::time::Instant::now() < until);
    }
}

#[tokio::test]
async fn k01_what_can_never_work_in_a_cell_says_why() {
    let sandbox = Sandbox::start();
    for line in ["!ls", "x = 1\n%timeit 1"] {
        let answer = run(&sandbox, "python", line).await;
        let value = answer["error"]["value"].as_str().unwrap();
        assert!(value.contains("IPython") && value.contains("subprocess.run"), "{answer}");
    }
    let spawn = "import multiprocessing as m\ndef f(x): return x * 2\np = m.get_context('spawn').Pool(1)\n\
                 try: p.map(f, [1])\nfinally: p.terminate()";
    let answer = run(&sandbox, "python", spawn).await;
    assert_eq!(answer["error"]["name"], "PicklingError", "{answer}");
    assert!(answer["error"]["value"].as_str().unwrap().contains("the function f of a cell"), "{answer}");
    assert_eq!(text(&sandbox, "python", "m.get_context('fork').Pool(1).map(f, [3])").await, "[6]");
    assert_eq!(text(&sandbox, "python", "m.get_context('spawn').Pool(1).map(abs, [-3])").await, "[3]");
}

#[tokio::test]
async fn k01_whatever_code_makes_of_its_stdout_loses_nothing() {
    let sandbox = Sandbox::start();
    for _ in 0..3 {
        let answer = run(&sandbox, "python", super::common::ODD_PIPES).await;
        assert!(answer.get("error").is_none(), "{answer}");
        assert!(stdout(&answer) == super::common::odd_pipes_output(), "{answer}");
    }
    let next = run(&sandbox, "python", "print('next')").await;
    assert_eq!((stdout(&next), next.get("lateOutput")), ("next\n".to_owned(), None));
}
