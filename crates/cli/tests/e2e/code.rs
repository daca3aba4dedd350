//! `sandcrab run-code`

use crate::rig::Rig;
use serde_json::Value;

#[test]
fn k01_code_runs_and_its_state_stays() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    assert_eq!(rig.cli_with(&["run-code", id], b"import os\nx = 20\nprint('out')").ok(), "out\n");
    assert_eq!(rig.cli_with(&["run-code", id, "-"], b"x * 2 + 2").ok(), "42\n");
    let file = tempfile::Builder::new().suffix(".ts").tempfile().unwrap();
    std::fs::write(file.path(), "const n: number = 7; console.log('ts'); ({ n })").unwrap();
    assert_eq!(rig.cli(&["run-code", id, file.path().to_str().unwrap()]).ok(), "ts\n{ n: 7 }\n");
    let json = rig.cli_with(&["run-code", "--json", "-l", "js", id], b"[1, 2]").ok().to_owned();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["results"][0]["json"], serde_json::json!([1, 2]));
    assert_eq!(json["executionCount"], 1);
}

#[test]
fn k01_failures_are_told_by_exit_codes() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    let failed = rig.cli_with(&["run-code", id], b"print('before')\n1 / 0");
    assert_eq!((failed.code(), failed.text()), (1, "before\n"));
    assert!(failed.stderr.ends_with("ZeroDivisionError: division by zero\n"), "{}", failed.stderr);
    let late = rig.cli_with(&["run-code", "--timeout", "0.2", id], b"while True: pass");
    assert_eq!(late.code(), 124);
    let died = rig.cli_with(&["run-code", id], b"import os; os._exit(3)");
    assert_eq!(died.code(), 1);
    assert!(died.stderr.contains("started anew"), "{}", died.stderr);
    assert_eq!(rig.cli_with(&["run-code", "-l", "ruby", id], b"1").code(), 125);
}

#[test]
fn s14_a_sessions_code_starts_where_the_session_stands() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    rig.cli(&["exec", "-s", "prod", id, "export STAGE=production; cd /tmp"]).ok();
    let seen = b"import os; os.environ.get('STAGE'), os.getcwd()";
    assert_eq!(rig.cli_with(&["run-code", "-s", "prod", id], seen).ok(), "('production', '/tmp')\n");
    assert_eq!(rig.cli_with(&["run-code", id], seen).ok(), "(None, '/workspace')\n");
    let once = rig.cli_with(&["run-code", "-e", "STAGE=once", id], seen);
    assert_eq!(once.ok(), "('once', '/workspace')\n");
}

#[test]
fn b11_nothing_that_code_returns_or_raises_drives_the_terminal() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    let code = b"class Odd:\n  def __repr__(self): return chr(27) + '[2J' + chr(0x9b) + '2J'\nOdd()";
    let plain = rig.cli_with(&["run-code", id], code);
    assert!(plain.ok().contains("[2J") && !plain.text().contains(['\u{1b}', '\u{9b}']), "{plain:?}");
    let json = rig.cli_with(&["run-code", "--json", id], code);
    assert!(!json.ok().contains(['\u{1b}', '\u{9b}']), "{json:?}");
    assert!(json.json()["results"][0]["text"].as_str().unwrap().contains('\u{9b}'), "{json:?}");
    let raised = rig.cli_with(&["run-code", id], b"raise ValueError(chr(27) + '[2J')");
    assert!(raised.stderr.contains("ValueError") && !raised.stderr.contains('\u{1b}'), "{raised:?}");
    // What it prints is its own, byte for byte.
    let printed = rig.cli_with(&["run-code", id], b"print(chr(27) + '[2J')");
    assert_eq!(printed.ok(), "\u{1b}[2J\n");
}
