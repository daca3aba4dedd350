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

#[tokio::test]
async fn k01_figures_give_their_data_beside_the_picture_and_are_shown_once() {
    let sandbox = Sandbox::start();
    let id = context(&sandbox).await;
    run(&sandbox, &id, "import matplotlib.pyplot as plt, numpy as np, datetime as d").await;
    for (code, kind, data) in [
        (
            "plt.plot([1, 2], [3, float('nan')], label='a'); plt.title('T'); plt.xlabel('x'); plt.show()",
            "line",
            json!([{ "type": "line", "label": "a", "x": [1, 2], "y": [3.0, null], "axes": 0 }]),
        ),
        (
            "plt.plot([d.date(2026, 1, 2)], [5], 'o'); plt.axhline(1); plt.show()",
            "scatter",
            json!([{ "type": "scatter", "x": ["2026-01-02"], "y": [5], "axes": 0 }]),
        ),
        (
            "plt.bar(['a', 'b'], [1, 2]); plt.show()",
            "bar",
            json!([{ "type": "bar", "x": ["a", "b"], "y": [1, 2], "axes": 0 }]),
        ),
        (
            "plt.hist([1, 1, 3], bins=2); plt.show()",
            "histogram",
            json!([{ "type": "histogram", "edges": [1.0, 2.0, 3.0], "counts": [2.0, 1.0], "axes": 0 }]),
        ),
        (
            "plt.pie([1, 3], labels=['p', 'q']); plt.show()",
            "pie",
            json!([{ "type": "pie", "labels": ["p", "q"], "values": [0.25, 0.75], "axes": 0 }]),
        ),
        (
            "plt.imshow(np.arange(4).reshape(2, 2)); plt.show()",
            "heatmap",
            json!([{ "type": "heatmap", "z": [[0, 1], [2, 3]], "axes": 0 }]),
        ),
        // As the last value, which would be shown by the end of the cell again.
        ("plt.plot([7]); plt.gcf()", "line", json!([{ "type": "line", "x": [0.0], "y": [7], "axes": 0 }])),
    ] {
        let answer = run(&sandbox, &id, code).await;
        let shown: Vec<&Value> =
            answer["results"].as_array().unwrap().iter().filter(|shown| shown.get("png").is_some()).collect();
        let [figure] = shown[..] else { panic!("{code}: shown {} times", shown.len()) };
        let chart = &figure["chart"];
        assert_eq!((&chart["type"], &chart["library"]), (&json!(kind), &json!("matplotlib")), "{code}");
        assert_eq!(chart["data"].to_string(), data.to_string(), "{code}");
        assert!(figure.get("data").is_none(), "{figure}");
    }
    let answer = run(&sandbox, &id, "plt.plot([1]); plt.title('T'); plt.xlabel('x'); plt.gcf()").await;
    let chart = &answer["results"][0]["chart"];
    assert_eq!((&chart["title"], &chart["layout"]["axes"][0]["xLabel"]), (&json!("T"), &json!("x")));
    // Nothing that the code does to a figure keeps its picture away.
    let broken = "plt.plot([1]); plt.gcf().get_suptitle = lambda: 1 / 0; plt.show()";
    let answer = run(&sandbox, &id, broken).await;
    assert!(
        answer["results"][0].get("png").is_some() && answer["results"][0].get("chart").is_none(),
        "{answer}"
    );
}
