//! Where the image has IPython, code runs in its shell. What these tests need is in the virtual environment
//! `target/ipython`, which `cargo xtask test` makes from requirements.txt beside this file.

use super::common::Sandbox;
use super::rig::{create, run_with, stdout, text_of};
use serde_json::{Value, json};

/// A context whose python3 is the environment's.
async fn context(sandbox: &Sandbox) -> String {
    let bin = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/ipython/bin");
    assert!(std::fs::exists(format!("{bin}/ipython")).unwrap(), "`cargo xtask test` makes {bin}");
    create(
        sandbox,
        json!({ "envVars": { "PATH": format!("{bin}:/usr/bin:/bin"), "HOME": sandbox.dir.path() } }),
    )
    .await
}

async fn run(sandbox: &Sandbox, id: &str, code: &str) -> Value {
    run_with(sandbox, json!({ "code": code, "contextId": id })).await
}

#[tokio::test]
async fn k01_ipython_keeps_state_shows_values_and_tells_errors() {
    let sandbox = Sandbox::start();
    let id = context(&sandbox).await;
    run(&sandbox, &id, "x = 20").await;
    let answer = run(&sandbox, &id, "print('out'); {'x': x * 2}").await;
    assert_eq!(answer["results"], json!([{ "text": "{'x': 40}", "json": { "x": 40 } }]));
    assert_eq!(stdout(&answer), "out\n");
    let error = &run(&sandbox, &id, "\ndef f():\n    return 1 / 0\nf()").await["error"];
    assert_eq!((&error["name"], &error["value"]), (&json!("ZeroDivisionError"), &json!("division by zero")));
    assert_eq!(error["lineNumber"], 3);
    let syntax = &run(&sandbox, &id, "ok = 1\nbad = )").await["error"];
    assert_eq!((&syntax["name"], &syntax["lineNumber"]), (&json!("SyntaxError"), &json!(2)));
    assert_eq!(run(&sandbox, &id, "exit()").await["error"]["name"], "SystemExit");
    assert_eq!(text_of(&run(&sandbox, &id, "import asyncio; await asyncio.sleep(0.01, x)").await), "20");
    let magic = run(&sandbox, &id, "!echo from the shell").await;
    assert_eq!(stdout(&magic).trim_end(), "from the shell");
    let html = "from IPython.display import HTML, display\ndisplay(HTML('<i>'))\nHTML('<b>')";
    let answer = run(&sandbox, &id, html).await;
    assert_eq!(
        (&answer["results"][0]["html"], &answer["results"][1]["html"]),
        (&json!("<i>"), &json!("<b>"))
    );
    let late =
        run_with(&sandbox, json!({ "code": "while True: pass", "contextId": id, "timeout": 100 })).await;
    assert_eq!(late["error"]["name"], "TimeoutError");
    assert_eq!(text_of(&run(&sandbox, &id, "x").await), "20");
}

#[tokio::test]
async fn k01_what_an_interpreter_rehearses_leaves_no_trace() {
    let sandbox = Sandbox::start();
    let id = context(&sandbox).await;
    // The next context gets the spare that this one's run has asked for, and that has waited long enough to rehearse.
    run(&sandbox, &id, "1").await;
    let code = "(get_ipython().execution_count, In, _, __, [n for n in dir() if n[0] != '_'])";
    let mut seen = Vec::new();
    for wait in [0, 2000] {
        tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
        let id = context(&sandbox).await;
        let shown = text_of(&run(&sandbox, &id, code).await).to_owned();
        assert!(
            shown.starts_with("(2,\n ['',\n  \"(get_ipython()"),
            "one cell has run, and this is it: {shown}"
        );
        seen.push(shown);
        let error = &run(&sandbox, &id, "\n1 / 0").await["error"];
        assert_eq!(error["lineNumber"], 2, "{error}");
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn k01_figures_and_tables_show_themselves() {
    let sandbox = Sandbox::start();
    let id = context(&sandbox).await;
    let plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()\nprint('shown')";
    let answer = run(&sandbox, &id, plot).await;
    assert!(answer.get("error").is_none(), "{answer}");
    let png = |value: &Value| value["png"].as_str().is_some_and(|png| png.starts_with("iVBORw0KGgo"));
    assert!(answer["results"].as_array().unwrap().iter().any(png), "{answer}");
    // One that nobody shows is shown at the end of its run, once.
    let answer = run(&sandbox, &id, "plt.plot([3, 2, 1]);").await;
    assert_eq!(
        answer["results"].as_array().unwrap().iter().filter(|shown| png(shown)).count(),
        1,
        "{answer}"
    );
    let answer = run(&sandbox, &id, "import pandas as pd\npd.DataFrame({'a': [1, 2]})").await;
    let table = &answer["results"][0];
    assert!(table["html"].as_str().unwrap().contains("<table"), "{answer}");
    assert!(table["text"].as_str().unwrap().contains('a'), "{answer}");
}
