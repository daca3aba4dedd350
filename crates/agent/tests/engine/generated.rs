//! S04 and S05 against an oracle: the same commands in a plain bash that evals one after the other.
//!
//! After each command both print `$?` between marks, and after the last one (and after each shell's end) everything that a
//! state holds. Line numbers, pids and bash's dynamic variables are masked.
//!
//! SANDCRAB_SEED repeats a run, SANDCRAB_SCRIPTS sets how many scripts one test generates (default 10,000).

use crate::generator::{Dice, command, given, quiet};
use crate::rig::{Rig, base_env};
use sandcrab_agent::shell::Changes;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

const MARK: u8 = 0x1e;
const PROBE: &[u8] = b"command printf '\\036%s\\036' \"$?\"; command printf '\\036\\036' >&2";
const DUMP: &[u8] = b"command declare -p; command declare -f; command declare -F; command alias -p; command shopt -p; command set +o; command trap -p; command umask; command pwd; command dirs -l -p; command printf '%s,' \"$@\"; command enable -n; true";

/// A command for the session, and what makes the same state in a shell that does not end.
struct Step {
    session: Vec<u8>,
    oracle: Vec<u8>,
    /// What the command itself prints cannot be compared (its shell ends with a message).
    masked: bool,
    /// What the session is given before the command.
    given: Changes,
}

fn same(text: Vec<u8>) -> Step {
    Step { session: text.clone(), oracle: text, masked: false, given: Changes::new() }
}

/// Variables that the session is given. In a plain shell each is made anew.
fn setter(dice: &mut Dice) -> Step {
    let mut given = given(dice);
    // Bash's own mark: with it in IFS, `eval "$__c"`, by which the oracle runs each command, doubles it.
    if let Some(Some(ifs)) = given.get_mut("IFS") {
        ifs.retain(|c| c != '\u{1}');
    }
    let mut oracle = Vec::new();
    for (name, value) in &given {
        oracle.extend_from_slice(format!("command unset -n {name}; command unset -v {name}\n").as_bytes());
        if let Some(value) = value {
            let value = value.replace('\'', "'\\''");
            // A plain assignment: as an argument of `command` the value would be split where IFS holds one of bash's own marks.
            oracle.extend_from_slice(format!("{name}='{value}'\ncommand export {name}\n").as_bytes());
        }
    }
    oracle.extend_from_slice(b":");
    Step { session: b":".to_vec(), oracle, masked: false, given }
}

/// A command that ends the shell. `(exit N) && :` gives the oracle's `$?` without an ERR trap or `set -e` noticing.
fn ender(dice: &mut Dice) -> Step {
    let quiet = quiet(dice);
    let code = dice.below(200) + 1;
    let with = |a: &[u8], b: String| [a, b"\n", b.as_bytes()].concat();
    match dice.below(7) {
        0 => Step {
            session: with(&quiet, format!("exit {code}")),
            oracle: with(&quiet, format!("(exit {code}) && :")),
            masked: false,
            given: Changes::new(),
        },
        1 => Step {
            session: with(&quiet, format!("fx_() {{ local a=lost C=lost; exit {code}; }}\nfx_")),
            oracle: with(
                &quiet,
                format!("fx_() {{ local a=lost C=lost; exit {code}; }}\n(exit {code}) && :"),
            ),
            masked: false,
            given: Changes::new(),
        },
        2 => Step {
            session: with(&quiet, "kill -9 \"$$\"".into()),
            oracle: b"(exit 137) && :".to_vec(),
            masked: false,
            given: Changes::new(),
        },
        3 => Step {
            session: with(&quiet, format!("exec sh -c 'exit {code}'")),
            oracle: format!("(exit {code}) && :").into_bytes(),
            masked: false,
            given: Changes::new(),
        },
        4 => Step {
            session: with(&quiet, "command set -e\ncommand false".into()),
            oracle: with(&quiet, "(exit 1) && :".into()),
            masked: false,
            given: Changes::new(),
        },
        5 => Step {
            session: with(&quiet, ": ${nope_?gone}".into()),
            oracle: with(&quiet, "(exit 127) && :".into()),
            masked: true,
            given: Changes::new(),
        },
        _ => Step {
            session: with(&quiet, "(exit 3) && :\nexit".into()),
            oracle: with(&quiet, "(exit 3) && :".into()),
            masked: false,
            given: Changes::new(),
        },
    }
}

/// What the oracle prints, cut at the marks: per command (stdout, `$?`, stderr).
fn oracle(steps: &[&[u8]], cwd: &std::path::Path) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let args = steps.iter().map(|text| std::ffi::OsString::from_vec(text.to_vec()));
    #[expect(clippy::disallowed_methods, reason = "the oracle is a plain bash")]
    // Whoever runs the tests in the background ignores SIGINT and SIGQUIT; a session's shell never does.
    let mut child = Command::new("env")
        .args(["--default-signal", "bash"])
        .args([
            "--norc",
            "--noprofile",
            "-O",
            "expand_aliases",
            "-c",
            "for __c; do eval \"$__c\"; done",
            "bash",
        ])
        .args(args)
        .env_clear()
        .envs(base_env())
        .current_dir(cwd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash starts");
    let mut stderr = child.stderr.take().expect("stderr is piped");
    let err = std::thread::spawn(move || {
        let mut all = Vec::new();
        stderr.read_to_end(&mut all).expect("stderr is read");
        all
    });
    let mut out = Vec::new();
    child.stdout.take().expect("stdout is piped").read_to_end(&mut out).expect("stdout is read");
    child.wait().expect("bash ends");
    let err = err.join().expect("stderr is read");
    let outs: Vec<_> = out.split(|b| *b == MARK).map(<[u8]>::to_vec).collect();
    let errs: Vec<_> = err.split(|b| *b == MARK).map(<[u8]>::to_vec).step_by(2).collect();
    outs.chunks(2)
        .zip(errs)
        .map(|(out, err)| (out[0].clone(), out.get(1).cloned().unwrap_or_else(|| b"ended".to_vec()), err))
        .collect()
}

/// Removes what differs between any two shells.
fn masked(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut in_loop_variable = false;
    for line in text.split_inclusive(|b| *b == b'\n') {
        // The oracle's loop variable holds a whole script. Its value ends where the next variable begins.
        let name = line.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
        let begins = line.starts_with(b"declare -") || name > 0 && line.get(name) == Some(&b'=');
        in_loop_variable = line.starts_with(b"__c=") || in_loop_variable && !begins;
        if in_loop_variable || is_dynamic(line) {
            continue;
        }
        let mut rest = line;
        while let Some(at) = find(rest, b"line ") {
            let (before, after) = rest.split_at(at + 5);
            out.extend_from_slice(before);
            let digits = after.iter().take_while(|b| b.is_ascii_digit()).count();
            out.push(b'N');
            rest = &after[digits..];
        }
        out.extend_from_slice(rest);
    }
    out
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|w| w == what)
}

/// A line of `declare -p` about a variable that bash itself keeps changing, or that the oracle's own loop needs.
fn is_dynamic(line: &[u8]) -> bool {
    const NAMES: &[&str] = &[
        "BASHPID",
        "BASH_ARGC",
        "BASH_ARGV",
        "BASH_ARGV0",
        "BASH_COMMAND",
        "BASH_EXECUTION_STRING",
        "BASH_LINENO",
        "BASH_MONOSECONDS",
        "BASH_REMATCH",
        "BASH_SOURCE",
        "BASH_SUBSHELL",
        "EPOCHREALTIME",
        "EPOCHSECONDS",
        "FUNCNAME",
        "LINENO",
        "PIPESTATUS",
        "PPID",
        "RANDOM",
        "SECONDS",
        "SRANDOM",
        "_",
        "__c",
        "HISTCMD",
        "BASH_CMDS",
        "SHLVL",
        "BASHOPTS",
    ];
    // `declare -p` prints attributes first, `declare` alone does not.
    let name = match line.strip_prefix(b"declare -") {
        Some(rest) => rest.iter().position(|b| *b == b' ').map_or(&rest[..0], |space| &rest[space + 1..]),
        None => line,
    };
    let name = &name[..name.iter().position(|b| matches!(b, b'=' | b'\n')).unwrap_or(name.len())];
    NAMES.iter().any(|n| n.as_bytes() == name)
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Runs one sequence in both. Errors say where they differ.
async fn compare(mut rig: Rig, steps: &[Step]) -> Result<(), String> {
    let mut theirs: Vec<&[u8]> = Vec::new();
    for step in steps {
        theirs.extend([&step.oracle[..], PROBE]);
    }
    let cwd = rig.dir.path().to_owned();
    let expected = oracle(&theirs, &cwd);
    for (i, step) in steps.iter().enumerate() {
        rig.session.set_env(&step.given).map_err(|error| format!("step {i}: {error}"))?;
        let ran = rig.run(&step.session).await;
        let Some((out, code, err)) = expected.get(i) else {
            return Err(format!("step {i}: the oracle ended before it"));
        };
        let (got_out, got_err) = (masked(&ran.stdout), masked(&ran.stderr));
        let (want_out, want_err) = (masked(out), masked(err));
        let differs = |what: &str, got: &[u8], want: &[u8]| {
            let at = got.iter().zip(want).take_while(|(a, b)| a == b).count();
            let from = at.saturating_sub(60);
            let cut = |t: &[u8]| show(&t[from.min(t.len())..(at + 200).min(t.len())]);
            Err(format!(
                "step {i}: {what} differs\n  session: ...{}\n  oracle:  ...{}\n  dropped: {:?}",
                cut(got),
                cut(want),
                ran.outcome.dropped
            ))
        };
        if !step.masked && got_out != want_out {
            return differs("stdout", &got_out, &want_out);
        }
        if !step.masked && got_err != want_err {
            return differs("stderr", &got_err, &want_err);
        }
        if code == b"ended" {
            // The oracle's shell ended here: so did the session's, and that is all there is to compare.
            return if ran.outcome.shell_restarted {
                Ok(())
            } else {
                Err(format!("step {i}: only the oracle's shell ended"))
            };
        }
        let probe = rig.run(PROBE).await;
        let got = probe.stdout.split(|b| *b == MARK).nth(1).unwrap_or_default();
        if got != code {
            return Err(format!(
                "step {i}: $? is {} in the session, {} in the oracle; {:?}",
                show(got),
                show(code),
                ran.outcome
            ));
        }
    }
    Ok(())
}

fn sequence(seed: u64, with_enders: bool) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let mut steps = vec![same(b"set -- first".to_vec())];
    for _ in 0..SCRIPTS_PER_SEQUENCE {
        steps.push(match dice.below(8) {
            0 => setter(&mut dice),
            1 | 2 if with_enders => ender(&mut dice),
            _ => same(command(&mut dice, with_enders)),
        });
    }
    steps.push(same(DUMP.to_vec()));
    steps
}

const SCRIPTS_PER_SEQUENCE: usize = 8;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

fn check(with_enders: bool) {
    let scripts = number("SANDCRAB_SCRIPTS").unwrap_or(10_000);
    let sequences = scripts.div_ceil(SCRIPTS_PER_SEQUENCE as u64);
    let first = number("SANDCRAB_SEED").unwrap_or_else(|| u64::from(std::process::id()) * 1_000_000);
    println!("{scripts} scripts in {sequences} sequences from seed {first}");
    let next = AtomicU64::new(first);
    let failures = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + sequences {
                        break;
                    }
                    let steps = sequence(seed, with_enders);
                    // By turns in a shell of its own and in one that waited for a session.
                    let compared = runtime.block_on(async {
                        let rig =
                            if seed.is_multiple_of(2) { Rig::new() } else { Rig::from_spare(Changes::new()) };
                        compare(rig, &steps).await
                    });
                    if let Err(why) = compared {
                        let script: Vec<_> =
                            steps.iter().map(|s| format!("    {} {:?}", show(&s.session), s.given)).collect();
                        let mut failures = failures.lock().expect("no thread panics with it");
                        failures.push(format!("seed {seed}: {why}\n{}", script.join("\n")));
                        if failures.len() >= 20 {
                            break;
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no thread panicked");
    assert!(
        failures.is_empty(),
        "{} sequences differ from the oracle\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

#[test]
fn s04_generated_scripts_behave_as_in_a_plain_shell() {
    check(false);
}

#[test]
fn s05_generated_states_survive_the_end_of_the_shell() {
    check(true);
}
