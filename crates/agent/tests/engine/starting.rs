//! S05: what happens to a shell on its way to its first command harms neither the session nor others.

use crate::rig::{Rig, call, image};
use sandcrab_agent::shell::image::ShellImage;
use sandcrab_agent::shell::{Changes, SessionConfig};
use sandcrab_agent::spawn::Identity;
use std::ffi::CString;
use std::os::unix::fs::PermissionsExt as _;

/// A bash that does `misdeed` first for every line in the file "misdeeds" beside it, which it uses up.
struct Bash {
    dir: tempfile::TempDir,
}

impl Bash {
    fn with(misdeed: &str) -> (Self, ShellImage) {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let path = dir.path().join("bash");
        let misdeeds = dir.path().join("misdeeds");
        let misdeeds = misdeeds.to_str().expect("a text path");
        let text = format!(
            "#!/bin/bash\nif [[ -s {misdeeds} ]]; then sed -i 1d {misdeeds}; {misdeed}; fi\nexec -a bash /bin/bash \"$@\"\n"
        );
        std::fs::write(&path, text).expect("it can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .expect("it can be made a program");
        let path = CString::new(path.to_str().expect("a text path")).expect("no NUL");
        let image = ShellImage::with(Some(&path), c"/bin/dash");
        (Self { dir }, image)
    }

    fn next(&self, misdeeds: usize) {
        std::fs::write(self.dir.path().join("misdeeds"), "again\n".repeat(misdeeds))
            .expect("it can be written");
    }
}

/// Says hello as the session loop does, takes a datagram as if to restore it, and dies.
const DIES_RESTORING: &str =
    r"printf 'SCRP\1\0\0\0%032d' 0 | tr 0 '\0' >&1000; head -c 1 <&1000 >/dev/null; kill -9 $$";

#[tokio::test]
async fn s05_a28_killing_shells_as_they_start_disables_no_session() {
    let (bash, image) = Bash::with("kill -9 $$");
    bash.next(2);
    let mut rig = Rig::with(Identity::default(), image.clone(), Changes::new());
    rig.run("x=1").await;
    assert_eq!(rig.run("echo $x").await.out(), "1\n", "it has a lasting shell");
    bash.next(100);
    let mut other = Rig::with(Identity::default(), image.clone(), Changes::new());
    let error = other.session.ensure_ready().await.expect_err("none of its shells lives");
    assert_eq!(error.to_string(), "the session's shell ended before it was ready");
    bash.next(0);
    other.run("x=2").await;
    assert_eq!(other.run("echo $x").await.out(), "2\n");
    // Nor does a shell that exits by itself, once another one of the image has come to life.
    let (bash, image) = Bash::with("exit 1");
    let mut rig = Rig::with(Identity::default(), image, Changes::new());
    rig.run("x=1; exit").await;
    bash.next(100);
    rig.session.ensure_ready().await.expect_err("none of its shells comes to life");
    bash.next(0);
    assert_eq!(rig.run("echo $x").await.out(), "1\n");
}

#[tokio::test]
async fn s05_a28_one_kill_during_the_restore_loses_nothing() {
    let (bash, image) = Bash::with(DIES_RESTORING);
    let mut rig = Rig::with(Identity::default(), image, Changes::new());
    rig.run("x=kept; cd /usr; exit").await;
    bash.next(1);
    let ran = rig.run("echo $x; pwd").await;
    assert_eq!((ran.out().as_str(), ran.outcome.dropped.len()), ("kept\n/usr\n", 0), "{ran:?}");
    rig.run("exit").await;
    bash.next(2);
    let error = rig.session.ensure_ready().await.expect_err("the state is given up");
    assert!(error.to_string().contains("given up"), "{error}");
    assert!(rig.session.watch().borrow().state.is_none(), "and nobody is told that it stands");
    let ran = rig.call(call("echo [$x]")).await;
    assert_eq!(ran.out(), "[]\n");
    assert_eq!(ran.outcome.dropped.iter().map(|part| part.kind).collect::<Vec<_>>(), ["state"]);
}

#[tokio::test]
async fn s10_a_session_in_a_shell_that_waited_for_it_is_as_in_one_of_its_own() {
    // What the shell itself says of its start, its pid and the time apart.
    let see = "declare -p | grep -vE '^declare -[a-z-]+ (BASHPID|EPOCH[A-Z]*|PPID|SECONDS|S?RANDOM|_)='; pwd; pwd -P; cd - 2>&1; env; \
        alias; shopt; set +o; trap; umask; ulimit -a; dirs; jobs; set -- /proc/$$/fd/*; echo $#";
    let own: Changes =
        [("A", Some("1")), ("LC_ALL", Some("C")), ("PATH", Some("/usr/bin:/bin")), ("TERM", Some("x"))]
            .map(|(name, value)| (name.to_owned(), value.map(str::to_owned)))
            .into();
    let image = image();
    let mut rigs = [Rig::with(Identity::default(), image, own.clone()), Rig::from_spare(own)];
    let mut seen = Vec::new();
    for rig in &mut rigs {
        let home = rig.dir.path().canonicalize().expect("it exists").display().to_string();
        let ran = rig.run(see).await;
        assert!(ran.out().contains("declare -x A=\"1\"\n") && ran.out().contains(&home), "{ran:?}");
        // A second command that is told its own directory finds the session's afterwards.
        let elsewhere = rig.call(call("pwd").cwd("/usr")).await.out();
        let back = rig.run("pwd").await.out();
        // A shell that dies has been in the session's place all the same.
        rig.run("kill -9 $$").await;
        let after = rig.run("pwd; echo $A $TERM").await.out();
        seen.push((ran.out() + &ran.err() + &elsewhere + &back + &after).replace(&home, "HOME"));
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn s01_a_shell_that_waited_counts_from_its_first_command() {
    let mut rig = Rig::from_spare(Changes::new());
    rig.session.ensure_ready().await.expect("the shell comes up");
    // Time itself is what is waited for here.
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let seconds: u32 = rig.run("echo $SECONDS").await.out().trim().parse().expect("a number");
    assert!(seconds < 2, "{seconds} seconds in a session that has just begun");
}

#[tokio::test]
async fn s10_a_shell_that_waited_does_not_take_what_bash_reads_at_its_start_only() {
    let mut rig = Rig::from_spare(Changes::new());
    let image = image();
    for name in
        ["IFS", "SHELLOPTS", "BASH_ENV", "PS4", "PWD", "OLDPWD", "SHLVL", "POSIXLY_CORRECT", "UID", "_"]
    {
        let mut config = SessionConfig::new("/usr", rig.env.clone(), image.clone());
        config.env.insert(name.to_owned(), Some("1".to_owned()));
        assert!(!rig.session.adopt(&config), "{name}");
    }
    let mut config = SessionConfig::new("/usr", rig.env.clone(), image);
    config.env.insert("TERM".to_owned(), None);
    assert!(!rig.session.adopt(&config), "without TERM bash makes its own");
    assert_ne!(rig.run("pwd").await.out(), "/usr\n", "nothing was done");
}

/// The sandbox's variables may have changed while the spare waited: a shell that is started now reads them at its start.
#[tokio::test]
async fn s10_a_spare_shell_is_not_taken_where_the_sandboxs_variables_would_have_started_another() {
    for (name, value) in
        [("BASH_ENV", Some("/x")), ("POSIXLY_CORRECT", Some("1")), ("LD_PRELOAD", Some("/x")), ("LANG", None)]
    {
        let mut rig = Rig::from_spare(Changes::new());
        let config = SessionConfig::new("/usr", rig.env.clone(), image());
        rig.env.change(&[("ORDINARY".to_owned(), Some("1".to_owned()))].into());
        assert!(rig.session.adopt(&config), "an ordinary one reaches it with its first command");
        rig.env.change(&[(name.to_owned(), value.map(str::to_owned))].into());
        assert!(!rig.session.adopt(&config), "{name}");
    }
}
