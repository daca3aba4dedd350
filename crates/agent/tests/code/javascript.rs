//! What JavaScript and TypeScript code does and shows.

use super::common::Sandbox;
use super::rig::{run, stderr, stdout, text};
use serde_json::json;

#[tokio::test]
async fn k01_javascript_keeps_what_a_run_leaves_and_gives_the_last_value() {
    let sandbox = Sandbox::start();
    assert_eq!(
        run(&sandbox, "js", "const a = 20; let b = 1; function f(n) { return n * 2 }").await["results"],
        json!([])
    );
    let answer = run(&sandbox, "node", "console.log('out'); console.error('err'); f(a) + ++b").await;
    assert_eq!(answer["results"], json!([{ "text": "42" }]));
    assert_eq!((stdout(&answer), stderr(&answer)), ("out\n".to_owned(), "err\n".to_owned()));
    let object = run(&sandbox, "javascript", "({ a: 1, b: [1, 'x'], c: undefined })").await;
    assert_eq!(object["results"][0]["text"], "{ a: 1, b: [ 1, 'x' ], c: undefined }");
    assert_eq!(object["results"][0]["json"], json!({ "a": 1, "b": [1, "x"] }));
    for (code, shown) in [
        ("'text'", "'text'"),
        ("null", "null"),
        ("10n ** 20n", "100000000000000000000n"),
        ("-0", "-0"),
        ("Symbol('s')", "Symbol(s)"),
        ("new Map([[1, 2]])", "Map(1) { 1 => 2 }"),
        ("const o = {}; o.o = o; o", "<ref *1> { o: [Circular *1] }"),
        ("{ a: 1 }", "1"),
    ] {
        assert_eq!(text(&sandbox, "js", code).await, shown, "{code}");
    }
    assert_eq!(run(&sandbox, "js", "undefined").await["results"], json!([]));
}

#[tokio::test]
async fn k01_javascript_declares_names_again_in_every_way() {
    let sandbox = Sandbox::start();
    for (code, shown) in [
        ("const x = 1; x", "1"),
        ("const x = 2; x", "2"),
        ("let x = 3; x = 4; x", "4"),
        ("class x {}; x", "[class x]"),
        ("var x = 5; x", "5"),
        ("function x() {}; x", "[Function: x]"),
        ("const x = 6; x", "6"),
        ("const { x, ...y } = { x: 7, z: 8 }; [x, y.z]", "[ 7, 8 ]"),
        // Within one run.
        ("const k = 1; const k = k0 = 2;\nlet k = 3; k", "3"),
        ("function g() { return 1 }\nconst g = 2; g", "2"),
        ("class D {}; class D { y = 2 }; new D()", "D { y: 2 }"),
    ] {
        assert_eq!(text(&sandbox, "js", code).await, shown, "{code}");
    }
    let constant = run(&sandbox, "js", "const fixed = 1; fixed = 2").await;
    assert_eq!(
        (&constant["error"]["name"], &constant["error"]["lineNumber"]),
        (&json!("TypeError"), &json!(1))
    );
}

#[tokio::test]
async fn k01_javascript_awaits_requires_and_imports() {
    let sandbox = Sandbox::start();
    let workspace = sandbox.dir.path().join("workspace");
    std::fs::write(workspace.join("m.mjs"), "export default 7; export const named = 8").unwrap();
    std::fs::write(workspace.join("c.cjs"), "module.exports = { c: 9 }").unwrap();
    std::fs::write(workspace.join("j.json"), "{\"j\": 10}").unwrap();
    for (code, shown) in [
        ("await new Promise((done) => setTimeout(() => done('slept'), 5))", "'slept'"),
        ("Promise.resolve(42)", "42"),
        ("require('./c.cjs').c + require('node:path').sep", "'9/'"),
        (
            "import fs, { existsSync as there } from 'node:fs';\ntypeof fs.readFileSync + there('/')",
            "'functiontrue'",
        ),
        ("there('/tmp')", "true"),
        ("import d, * as all from './m.mjs'\n[d, all.named]", "[ 7, 8 ]"),
        ("(await import('./m.mjs')).named", "8"),
        ("import('./m.mjs').then((m) => m.default)", "7"),
        ("import data from './j.json' with { type: 'json' }; data.j", "10"),
        ("import.meta.filename.endsWith('/workspace/cell.js')", "true"),
        ("'no import here'", "'no import here'"),
    ] {
        let answer = run(&sandbox, "js", code).await;
        assert_eq!(answer["results"].as_array().unwrap().last().unwrap()["text"], shown, "{code}: {answer}");
        assert_eq!(stderr(&answer), "", "{code}");
    }
    let missing = run(&sandbox, "js", "import { nothing } from 'node:fs'").await;
    assert_eq!(missing["error"]["name"], "SyntaxError");
    assert!(missing["error"]["value"].as_str().unwrap().contains("'nothing'"), "{missing}");
    assert_eq!(run(&sandbox, "js", "import './m.mjs'").await["results"], json!([]));
}

#[tokio::test]
async fn k01_javascript_errors_have_name_value_traceback_and_line() {
    let sandbox = Sandbox::start();
    let answer = run(&sandbox, "js", "function f() {\n  return missing;\n}\n\nf()").await;
    let error = &answer["error"];
    assert_eq!(
        (&error["name"], &error["value"]),
        (&json!("ReferenceError"), &json!("missing is not defined"))
    );
    assert_eq!(error["lineNumber"], 2);
    let traceback = error["traceback"].as_array().unwrap();
    assert_eq!(traceback.len(), 3, "nothing of the executor's own: {traceback:?}");
    let late =
        run(&sandbox, "js", "await 1;\nawait (async () => { await 2; throw new TypeError('late') })()").await;
    assert_eq!((&late["error"]["name"], &late["error"]["lineNumber"]), (&json!("TypeError"), &json!(2)));
    let syntax = run(&sandbox, "js", "let a = 1;\nlet = ;").await;
    assert_eq!(
        (&syntax["error"]["name"], &syntax["error"]["lineNumber"]),
        (&json!("SyntaxError"), &json!(2))
    );
    assert_eq!(run(&sandbox, "js", "throw 'text'").await["error"]["value"], "text");
    assert_eq!(run(&sandbox, "js", "throw { a: 1 }").await["error"]["value"], "{ a: 1 }");
    assert_eq!(run(&sandbox, "js", "null.x").await["error"]["name"], "TypeError");
    // What fails in a callback, or in a promise that nobody waits for, ends nothing.
    let code = "setTimeout(() => { throw new Error('cb') }, 1); Promise.reject(new Error('lost'));\nawait new Promise((r) => setTimeout(r, 30)); 1";
    let answer = run(&sandbox, "js", code).await;
    assert_eq!(answer["results"][0]["text"], "1");
    assert!(stderr(&answer).contains("Error: cb") && stderr(&answer).contains("Error: lost"), "{answer}");
}

#[tokio::test]
async fn k01_javascript_shows_rich_values() {
    let sandbox = Sandbox::start();
    let code = "display({ 'text/html': '<b>', 'image/png': Buffer.from([137, 80]) }, { raw: true });
        display(1);
        ({ [Symbol.for('Jupyter.display')]() { return { 'text/plain': 'a map', 'application/vnd.vegalite.v5+json': { mark: 'bar', title: 'T' } } } })";
    let answer = run(&sandbox, "js", code).await;
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results[0], json!({ "html": "<b>", "png": "iVA=" }));
    assert_eq!(results[1], json!({ "text": "1" }));
    assert_eq!(results[2]["text"], "a map");
    assert_eq!(
        results[2]["chart"],
        json!({ "type": "bar", "title": "T", "library": "altair", "data": { "mark": "bar", "title": "T" } })
    );
    let surrogate = run(&sandbox, "js", r"({ a: '\ud800', b: '\\ud800' })").await;
    assert_eq!(surrogate["results"][0]["json"], json!({ "a": "\u{fffd}", "b": "\\ud800" }));
}

#[tokio::test]
async fn k01_typescript_runs_without_its_types() {
    let sandbox = Sandbox::start();
    for (code, shown) in [
        ("interface P { n: number }\nconst p: P = { n: 1 }; p.n", "1"),
        ("enum E { A, B }; E.B", "1"),
        ("class Q { constructor(public n: number) {} }; new Q(3).n", "3"),
        ("function id<T>(x: T): T { return x }\nid<string>('s') as unknown", "'s'"),
        (
            "import type { Stats } from 'node:fs'; import { sep } from 'node:path'; sep satisfies string",
            "'/'",
        ),
        ("const p: string = await Promise.resolve('again'); p!", "'again'"),
        ("abstract class A { abstract f(): void }; declare const ghost: number; typeof A", "'function'"),
    ] {
        assert_eq!(text(&sandbox, "ts", code).await, shown, "{code}");
    }
    let error = run(&sandbox, "typescript", "type T = number;\n\nnull!.x").await;
    assert_eq!((&error["error"]["name"], &error["error"]["lineNumber"]), (&json!("TypeError"), &json!(3)));
    let syntax = run(&sandbox, "typescript", "let a: number = 1;\nlet b: = 2").await;
    assert_eq!(
        (&syntax["error"]["name"], &syntax["error"]["lineNumber"]),
        (&json!("SyntaxError"), &json!(2))
    );
    let javascript = run(&sandbox, "js", "let t: number = 1").await;
    assert_eq!(javascript["error"]["name"], "SyntaxError", "types are no JavaScript");
}

/// The traceback as one text.
fn traceback(answer: &serde_json::Value) -> String {
    let lines = answer["error"]["traceback"].as_array().unwrap();
    lines.iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn k01_javascript_errors_keep_all_that_they_carry_and_nothing_of_the_executor() {
    let sandbox = Sandbox::start();
    for (code, carried) in [
        (
            "const inner = Object.assign(new Error('refused'), { code: 'ECONNREFUSED', port: 1 });
            throw new TypeError('fetch failed', { cause: inner })",
            &["TypeError: fetch failed", "[cause]: Error: refused", "code: 'ECONNREFUSED'", "port: 1"][..],
        ),
        (
            "throw new AggregateError([new Error('a1'), new RangeError('b2')], 'many')",
            &["Error: a1", "RangeError: b2"],
        ),
        ("throw new (class Own extends Error { detail = [1, 2] })('own')", &["detail: [ 1, 2 ]"]),
        ("require('node:fs').readFileSync('/nope')", &["code: 'ENOENT'", "path: '/nope'"]),
        ("Buffer.alloc('x')", &["TypeError [ERR_INVALID_ARG_TYPE]: "]),
        ("const e = new Error('bare'); e.stack = undefined; throw e", &["bare"]),
    ] {
        let answer = run(&sandbox, "js", code).await;
        let told = traceback(&answer);
        for text in carried {
            assert!(told.contains(text), "{code}: {told}");
        }
        assert!(!told.contains("sandcrab:") && !told.contains("node:inspector"), "{code}: {told}");
    }
    // The same where the code itself shows an error, or nobody takes it.
    let code = "console.log(new Error('shown', { cause: new Error('why') }).stack);
        console.error(new Error('e', { cause: new Error('c') })); Promise.reject(new Error('lost'));
        await new Promise((r) => setTimeout(r, 10)); new Error('value')";
    let answer = run(&sandbox, "js", code).await;
    let all = format!("{}{}{}", stdout(&answer), stderr(&answer), answer["results"][0]["text"]);
    for text in ["Error: shown", "[cause]: Error: c", "Error: lost", "Error: value", "cell-"] {
        assert!(all.contains(text), "{all}");
    }
    assert!(!all.contains("sandcrab:") && !all.contains("node:inspector"), "{all}");
    // Code may format stacks as it likes.
    let own = "Error.prepareStackTrace = (e, frames) => `own ${frames.length > 0}`; new Error('x').stack";
    assert_eq!(text(&sandbox, "js", own).await, "'own true'");
    let ended = run(&sandbox, "js", "process.on('exit', () => console.error('bye')); process.exit(3)").await;
    assert_eq!(stderr(&ended), "bye\n", "no word of a debugger");
}

#[tokio::test]
async fn k01_javascript_is_as_in_a_file_of_the_working_directory() {
    let sandbox = Sandbox::start();
    let cwd = text(&sandbox, "js", "process.cwd()").await.replace('\'', "");
    assert_eq!(
        text(&sandbox, "js", "[__dirname, __filename, import.meta.filename]").await,
        format!("[ '{cwd}', '{cwd}/cell.js', '{cwd}/cell.js' ]")
            .replace(", '", ",\n  '")
            .replace("[ '", "[\n  '")
            .replace(" ]", "\n]"),
    );
    for (code, shown) in [
        ("export const x = 1; export let y = 2\nexport function f() { return x + y }\nf()", "3"),
        ("export default class A { a = 1 }\nnew A().a", "1"),
        ("const local = 5; export { local as other, x };\nlocal", "5"),
        ("export default { a: 1 }", "{ a: 1 }"),
        ("export * from 'node:path'; export { sep } from 'node:path'; x", "1"),
        ("const o = { export: 1 }; o.export", "1"),
    ] {
        assert_eq!(text(&sandbox, "js", code).await, shown, "{code}");
    }
    let missing = run(&sandbox, "js", "export { nope } from 'node:path'").await;
    assert!(missing["error"]["value"].as_str().unwrap().contains("'nope'"), "{missing}");
}

/// Whoever asks a stdin that has ended hears that, and need not wait for the timeout.
#[tokio::test]
async fn k02_javascript_that_waits_for_a_stdin_that_has_ended_fails() {
    let sandbox = Sandbox::start();
    // Lines come to their end.
    let lines = "let n = 0; for await (const l of require('node:readline').createInterface({ input: process.stdin })) n++; n";
    assert_eq!(text(&sandbox, "js", lines).await, "0");
    for code in [
        "await require('node:readline/promises').createInterface({ input: process.stdin }).question('name? ')",
        "await new Promise((r) => require('node:readline').createInterface({ input: process.stdin }).question('q', r))",
    ] {
        let answer = run(&sandbox, "js", code).await;
        assert!(answer["error"]["value"].as_str().unwrap().starts_with("stdin has ended"), "{answer}");
    }
    assert_eq!(text(&sandbox, "js", "await new Promise((r) => setTimeout(r, 20, 'late'))").await, "'late'");
}

#[tokio::test]
async fn k01_javascript_counts_what_it_does_not_show() {
    let sandbox = Sandbox::start();
    let shown = text(&sandbox, "js", "'x'.repeat(9_000_000)").await;
    let (kept, rest) = shown.split_once("… [").unwrap();
    let more: usize = rest.strip_suffix(" more characters]").unwrap().parse().unwrap();
    // The quote that opens the text is one of the characters kept.
    assert!((8_999_998..=9_000_001).contains(&(kept.len() + more)), "{} and {more}", kept.len());
}

#[tokio::test]
async fn k01_typescript_loads_the_users_own_files() {
    let sandbox = Sandbox::start();
    let write = "import { writeFileSync as w, mkdirSync } from 'node:fs'; mkdirSync('lib', { recursive: true });
        w('types.ts', 'export interface X { a: string }');
        w('util.ts', 'import { X } from \"./types\"; export enum E { A = 1 }\\nexport const x: X = { a: \"q\" }; export const add = (a: number, b: number): number => a + b;');
        w('twice.mts', 'import { add } from \"./util.js\"; export default (n: number) => add(n, n)');
        w('lib/index.ts', 'export const lib: string = \"lib\"');
        w('old.cts', 'const n: number = 4; module.exports = { n }');
        w('mixed.ts', 'const u = require(\"./util\"); exports.sum = u.add(1, 1) as number');
        w('space.ts', 'export {}\\nnamespace N { export const x = 1 }'); 1";
    assert_eq!(text(&sandbox, "ts", write).await, "1");
    for (code, shown) in [
        ("import twice, {} from './twice.mts'; twice(4)", "8"),
        ("import { add, E, x } from './util'; [add(1, 2), E.A, x.a]", "[ 3, 1, 'q' ]"),
        ("import * as again from './util.js'; again.add(2, 2)", "4"),
        ("import { lib } from './lib'; lib", "'lib'"),
        ("[require('./old.cts').n, require('./mixed').sum, require('./util.ts').E.A]", "[ 4, 2, 1 ]"),
        ("(await import('./util.ts')).add(3, 3)", "6"),
    ] {
        assert_eq!(text(&sandbox, "ts", code).await, shown, "{code}");
    }
    for code in ["await import('./space.ts')", "require('./space')"] {
        let answer = run(&sandbox, "ts", code).await;
        let value = answer["error"]["value"].as_str().unwrap();
        assert!(value.contains("space.ts:2: namespaces with values are not supported"), "{answer}");
    }
    let missing = run(&sandbox, "ts", "import './missing'").await;
    assert!(missing["error"]["value"].as_str().unwrap().starts_with("Cannot find module"), "{missing}");
    assert!(!traceback(&missing).contains("sandcrab:"), "{missing}");
}

#[tokio::test]
async fn k01_typescript_that_is_more_than_types_is_refused_by_name() {
    let sandbox = Sandbox::start();
    for (code, name) in [
        ("1;\nnamespace A { export const x = 1 }\nA.x", "namespaces"),
        ("module A.B { function f() {} }", "namespaces"),
        ("function dec(x: any) {}\n@dec class A {}", "decorators"),
    ] {
        let answer = run(&sandbox, "ts", code).await;
        assert_eq!(answer["error"]["name"], "SyntaxError", "{code}: {answer}");
        assert!(answer["error"]["value"].as_str().unwrap().starts_with(name), "{code}: {answer}");
    }
    for (code, shown) in [
        (
            "declare namespace D { const x: number }\nnamespace T { export interface X { a: string } }\nconst namespace = 3; namespace",
            "3",
        ),
        ("declare module 'x' { const y: number }\nconst mail = 'a@b'; mail // @c", "'a@b'"),
    ] {
        assert_eq!(text(&sandbox, "ts", code).await, shown, "{code}");
    }
}
