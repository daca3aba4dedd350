//! S09, S11: what is given to one command, to a session, to a sandbox.

use crate::rig::{Rig, call};
use sandcrab_agent::shell::Changes;

fn changes(list: &[(&str, Option<&str>)]) -> Changes {
    list.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
}

#[tokio::test]
async fn s09_env_of_one_command_is_undone_exactly() {
    let mut rig = Rig::new();
    let show = "declare -p A B C D E PATH IFS 2>&1";
    rig.run("A=plain; export B=exported; declare -i C=5; D=(1 2); unset E; readonly R=ro").await;
    let before = rig.run(show).await.out();
    let given = call("echo $A $B $C $D $E $R; env | grep -c -e ^A= -e ^B= -e ^C= -e ^D= -e ^E= -e ^R=; A=x; unset B; C=(9); readonly D; export E=more; declare -A R")
        .env("A", Some("a"))
        .env("B", Some("b"))
        .env("C", Some("c"))
        .env("D", Some("d"))
        .env("E", Some("e"))
        .env("R", Some("r"));
    let ran = rig.call(given).await;
    assert_eq!(ran.out(), "a b c d e r\n6\n", "{ran:?}");
    assert_eq!(rig.run(show).await.out(), before);
    assert_eq!(rig.run("echo $R; R=2").await.out(), "ro\n");

    let ran = rig.call(call("echo ${B-unset}; env | grep -c ^B=").env("B", None)).await;
    assert_eq!(ran.out(), "unset\n0\n");
    assert_eq!(rig.run(show).await.out(), before);
}

#[tokio::test]
async fn s09_special_variables_take_effect_and_are_undone() {
    let mut rig = Rig::new();
    let ran = rig.call(call("x=a:b; set -- $x; echo $#").env("IFS", Some(":"))).await;
    assert_eq!(ran.out(), "2\n");
    assert_eq!(rig.run("x=a:b; set -- $x; echo $#; y='a b'; set -- $y; echo $#").await.out(), "1\n2\n");
    assert_eq!(rig.call(call("ls").env("PATH", Some("/nonexistent"))).await.code(), 127);
    assert_eq!(rig.run("ls / >/dev/null").await.code(), 0);
}

#[tokio::test]
async fn s09_cwd_of_one_command_is_undone_exactly() {
    let mut rig = Rig::new();
    rig.run("cd /usr; cd /").await;
    let ran = rig.call(call("pwd; echo $PWD; /bin/pwd; cd bin; pwd").cwd("/usr")).await;
    assert_eq!(ran.out(), "/usr\n/usr\n/usr\n/usr/bin\n");
    assert_eq!(rig.run("pwd; echo $PWD $OLDPWD; /bin/pwd").await.out(), "/\n/ /usr\n/\n");
    rig.run("cd /usr").await;
    assert_eq!(rig.call(call("pwd").cwd("lib/..//share/./")).await.out(), "/usr/share\n");
    let ran = rig.call(call("echo never").cwd("/nonexistent")).await;
    assert_eq!((ran.code(), ran.out()), (1, String::new()));
    assert!(ran.err().contains("/nonexistent: No such file or directory"), "{}", ran.err());
    assert_eq!(rig.run("pwd").await.out(), "/usr\n");
}

#[tokio::test]
async fn a30_a_commands_directory_is_none_behind_a_magic_link() {
    let mut rig = Rig::new();
    rig.run("ln -s /proc/self/cwd planted; cd /usr").await;
    let planted = rig.path("planted");
    for cwd in ["/proc/self/cwd", "/proc/self/root/usr", "/dev/fd/1000", planted.as_str()] {
        let ran = rig.call(call("echo never").cwd(cwd)).await;
        assert_eq!((ran.code(), ran.out()), (1, String::new()), "{cwd}");
        assert!(ran.err().contains("leads through a link of /proc"), "{cwd}: {}", ran.err());
    }
    assert_eq!(rig.run("pwd; cd /proc/self/cwd && /bin/pwd").await.out(), "/usr\n/usr\n", "their own cd may");
}

#[tokio::test]
async fn s09_what_was_given_is_undone_when_the_command_ends_the_shell() {
    let mut rig = Rig::new();
    rig.run("cd /usr; export A=mine").await;
    let ran = rig.call(call("B=new; cd /etc; exit 3").env("A", Some("given")).cwd("/tmp")).await;
    assert_eq!(ran.code(), 3);
    assert_eq!(
        rig.run("echo $A $B; pwd; declare -p A").await.out(),
        "mine new\n/usr\ndeclare -x A=\"mine\"\n"
    );
}

#[tokio::test]
async fn s11_a_sandboxs_variable_reaches_sessions_unless_they_have_their_own() {
    let mut rig = Rig::new();
    rig.run("true").await;
    rig.env.change(&changes(&[("A", Some("1")), ("PATH", Some("/usr/bin:/bin"))]));
    assert_eq!(rig.run("echo $A $PATH; env | grep ^A=").await.out(), "1 /usr/bin:/bin\nA=1\n");
    rig.env.change(&changes(&[("A", Some("2"))]));
    assert_eq!(rig.run("echo $A").await.out(), "2\n");

    rig.session.set_env(&changes(&[("A", Some("own")), ("N", None)])).expect("valid names");
    rig.env.change(&changes(&[("A", Some("3")), ("N", Some("x"))]));
    assert_eq!(rig.run("echo $A ${N-none}").await.out(), "own none\n");

    rig.run("export B=shell").await;
    rig.env.change(&changes(&[("B", Some("sandbox")), ("C", Some("c"))]));
    assert_eq!(rig.run("echo $B $C").await.out(), "shell c\n");
    rig.env.change(&changes(&[("C", None)]));
    assert_eq!(rig.run("echo ${C-unset}").await.out(), "unset\n");
}

#[tokio::test]
async fn s11_given_variables_survive_the_shell() {
    let mut rig = Rig::new();
    rig.run("true").await;
    rig.env.change(&changes(&[("A", Some("1"))]));
    rig.session.set_env(&changes(&[("B", Some("2"))])).expect("valid names");
    // Delivered with a command that dies before any state was saved with them.
    assert_eq!(rig.run("kill -9 $$").await.code(), 137);
    assert_eq!(rig.run("echo $A $B").await.out(), "1 2\n");
    rig.run("B=changed").await;
    rig.run("kill -9 $$").await;
    assert_eq!(rig.run("echo $A $B").await.out(), "1 changed\n");
}

#[tokio::test]
async fn s11_a_value_arrives_as_it_is_whatever_the_variable_was() {
    const NAMES: [&str; 9] = ["INT", "UP", "LOW", "CAP", "REF", "ARR", "MAP", "RO", "ROREF"];
    const VALUES: [&str; 5] = ["a b", "x[$(id >pwned; echo 0)]", "MiXeD", "", "$'\\n' *"];
    let kinds = "declare -i INT=5; declare -u UP=a; declare -l LOW=B; declare -c CAP=c; target=t; declare -n REF=target
                 ARR=(1 2); declare -A MAP=([k]=v); readonly RO=1; declare -rn ROREF=target";
    for value in VALUES {
        for from_the_sandbox in [false, true] {
            let mut rig = Rig::new();
            if from_the_sandbox {
                // One that a session has changed is the session's: here it still has the sandbox's text.
                rig.env.change(
                    &NAMES[..4].iter().map(|name| ((*name).to_owned(), Some("7".to_owned()))).collect(),
                );
                rig.run("declare -i INT; declare -u UP; declare -l LOW; declare -c CAP; readonly INT").await;
                rig.env.change(
                    &NAMES[..4].iter().map(|name| ((*name).to_owned(), Some(value.to_owned()))).collect(),
                );
            } else {
                rig.run(kinds).await;
                rig.session
                    .set_env(&NAMES.iter().map(|name| ((*name).to_owned(), Some(value.to_owned()))).collect())
                    .unwrap();
            }
            let names = &NAMES[..if from_the_sandbox { 4 } else { NAMES.len() }];
            for name in names {
                let show = format!(
                    "printf '<%s>' \"${name}\" \"$(printenv {name})\"; declare -p {name} | grep -c '^declare -x'; echo $target"
                );
                let target = if from_the_sandbox { "" } else { "t" };
                assert_eq!(rig.run(&show).await.out(), format!("<{value}><{value}>1\n{target}\n"), "{name}");
            }
            rig.run("kill -9 $$").await;
            for name in names {
                assert_eq!(
                    rig.run(&format!("printf %s \"${name}\"")).await.out(),
                    value,
                    "{name}, in the next shell"
                );
            }
            assert_eq!(rig.run("test -e pwned; echo $?").await.out(), "1\n");
        }
    }
}
