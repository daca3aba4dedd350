//! `session`, `env`, `context`: what lasts in a sandbox is made, changed and ended.

use crate::rig::Rig;

#[test]
fn s10_sessions_are_made_as_asked_for_and_ended() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    let create = ["session", "create", "-e", "STAGE=prod", "-w", "/srv/app", "--timeout", "0.3", id, "prod"];
    assert_eq!(rig.cli(&create).ok(), "prod\n");
    assert_eq!(rig.cli(&["exec", "-s", "prod", id, "echo $STAGE in $PWD"]).ok(), "prod in /srv/app\n");
    assert_eq!(rig.cli(&["exec", "-s", "prod", id, "sleep 60"]).code(), 124, "its own timeout");
    assert_eq!(rig.cli(&["exec", id, "echo ${STAGE-none}"]).ok(), "none\n");
    rig.cli(&create).failed("SESSION_ALREADY_EXISTS");
    let made_up = rig.cli(&["session", "create", "--json", "--name", "mine", id]).json();
    let made_up = made_up["id"].as_str().unwrap();

    let ended = rig.cli(&["session", "rm", id, "prod", "missing", made_up]);
    assert_eq!((ended.code(), ended.text()), (125, format!("prod\n{made_up}\n").as_str()));
    assert!(ended.stderr.contains("missing"), "{}", ended.stderr);
    assert_eq!(
        rig.cli(&["exec", "-s", "prod", id, "echo ${STAGE-none} in $PWD"]).ok(),
        "none in /workspace\n"
    );
    rig.cli(&["session", "rm", id, "default"]).failed("VALIDATION_FAILED");
    rig.cli(&["session", "rm", "not-there", "x"]).failed("SANDBOX_NOT_FOUND");
}

#[test]
fn s11_variables_reach_sessions_and_a_sessions_own_wins() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    let seen = |session: &str| {
        rig.cli(&["exec", "-s", session, id, "echo ${A-none} ${B-none}"]).ok().trim().to_owned()
    };
    assert_eq!(seen("one"), "none none");
    assert_eq!(rig.cli(&["env", id, "A=1", "B=with = and blank"]).ok(), "");
    assert_eq!(rig.cli(&["env", "-s", "one", id, "A=own"]).ok(), "");
    assert_eq!((seen("one"), seen("two")), ("own with = and blank".into(), "1 with = and blank".into()));
    rig.cli(&["env", "-u", "B", id]).ok();
    assert_eq!((seen("one"), seen("two")), ("own none".into(), "1 none".into()));
    let told = rig.cli(&["env", "--json", id, "A=2", "-u", "B"]).json();
    assert_eq!(told["changed"], serde_json::json!(["A", "B"]));
    rig.cli(&["env", id, "1=x"]).failed("VALIDATION_FAILED");
}

#[test]
fn k01_contexts_are_made_listed_and_ended() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    rig.cli(&["exec", "-s", "s", id, "export STAGE=prod"]).ok();
    let create = ["context", "create", "-s", "s", "-e", "OWN=1", "-w", "/tmp", id];
    let one = rig.cli(&create).ok().trim().to_owned();
    let two = rig.cli(&["context", "create", "-l", "js", id]).ok().trim().to_owned();
    let run = |context: &str, code: &str| {
        rig.cli_with(&["run-code", "-c", context, id], code.as_bytes()).ok().trim().to_owned()
    };
    let where_it_is = "import os; os.environ['STAGE'], os.environ['OWN'], os.getcwd()";
    assert_eq!(run(&one, where_it_is), "('prod', '1', '/tmp')");
    assert_eq!(run(&two, "[1, 2].map((n) => n * 2)"), "[ 2, 4 ]");
    let list = rig.cli(&["context", "ls", "--json", id]).json();
    let ids: Vec<_> =
        list.as_array().unwrap().iter().map(|context| context["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&*one, &*two]);
    let table = rig.cli(&["context", "ls", id]).ok().to_owned();
    assert!(table.contains(&two) && table.contains("javascript"), "{table}");
    assert_eq!(rig.cli(&["context", "rm", id, &one, &two]).ok(), format!("{one}\n{two}\n"));
    rig.cli(&["context", "rm", id, &one]).failed("CONTEXT_NOT_FOUND");
    assert_eq!(rig.cli(&["context", "ls", "--json", id]).json(), serde_json::json!([]));
}
