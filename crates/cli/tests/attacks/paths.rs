//! Paths that lead out of a sandbox by the links of `/proc`: to a working directory, a program, an interpreter.

use crate::rig::Sandbox;
use std::time::Duration;

/// A file of the host that no sandbox has, seen from a directory of the agent's in `/proc/self/fd`.
const STAT: &str =
    "for up in . .. ../.. ../../.. ../../../../../../..; do stat $up/proc/1/root 2>&1; done; pwd";

/// Starts in a shell of its own, with its directory behind `/proc/self/fd/N` for every number that may be the agent's.
fn directories() -> impl Iterator<Item = String> {
    let numbers = (0..64).map(|fd| format!("/proc/self/fd/{fd}"));
    numbers.chain(
        ["/proc/self/cwd", "/proc/1/cwd", "/proc/1/root", "/dev/fd/6", "/proc/thread-self/fd/6"]
            .map(str::to_owned),
    )
}

attack!(a30_a_callers_directory_behind_a_magic_link, [root, rootless, without_landlock], |rig| {
    let sandbox = rig.sandbox();
    for cwd in directories() {
        let exec = rig.wait(sandbox.remote.exec(STAT).cwd(&cwd).run()).unwrap();
        assert_eq!((exec.exit_code(), exec.stdout_text().as_ref()), (1, ""), "{cwd}");
        assert!(exec.stderr_text().contains(&cwd), "{cwd}: {}", exec.stderr_text());
        let error = rig.wait(sandbox.remote.start("sleep 1").cwd(&cwd).run()).unwrap_err();
        let said = format!("{error:?}");
        assert!(said.contains("\"cwd\""), "{cwd}: the field is named: {said}");
        assert!(!said.contains("INTERNAL") && !said.contains("PROCESS_ERROR"), "{cwd}: {said}");
    }
    // The control: links that are honest, and chains of them.
    sandbox.output("mkdir /tmp/real && ln -s real /tmp/first && ln -s /tmp/first /workspace/second");
    let exec = rig.wait(sandbox.remote.exec("/bin/pwd").cwd("/workspace/second").run()).unwrap();
    assert_eq!(exec.stdout_text(), "/tmp/real\n");
    let exec = rig.wait(sandbox.remote.exec("/bin/pwd").cwd("second").fresh().run()).unwrap();
    assert_eq!(exec.stdout_text(), "/tmp/real\n");
});

attack!(a30_a_workspace_that_is_a_planted_link, [root, rootless, without_landlock], |rig| {
    let sandbox = rig.sandbox();
    sandbox.output("mv /workspace /w2");
    for number in 3..24 {
        let planted = format!("rm -f /workspace; ln -s /proc/self/fd/{number} /workspace; kill -9 $$");
        let session = sandbox.remote.session(format!("s{number}")).unwrap();
        rig.wait(session.exec(planted.as_str()).timeout(Duration::from_secs(60)).run()).unwrap();
        for session in [&session, &sandbox.remote.session("another").unwrap()] {
            let exec = rig.wait(session.exec("/bin/pwd; cat /proc/self/mountinfo | wc -l; ls -d ../../../../etc/shadow-of-host").run()).unwrap();
            let printed = exec.stdout_text().into_owned();
            assert!(printed.starts_with('/') && !printed.contains("unreachable"), "{number}: {printed}");
            assert!(["/\n", "/w2\n"].iter().any(|place| printed.starts_with(place)), "{number}: {printed}");
        }
    }
    let process = rig.wait(sandbox.remote.start("pwd").run());
    assert!(format!("{:?}", process.unwrap_err()).contains("cwd"), "named");
    // The control: the workspace is used again as soon as it is one.
    sandbox.output("rm -f /workspace; mv /w2 /workspace");
    let exec = rig.wait(sandbox.remote.session("later").unwrap().exec("/bin/pwd").run()).unwrap();
    assert_eq!(exec.stdout_text(), "/workspace\n");
});

/// Puts a link or a script in place of a program of the image; a copy of the real one stays as `/tmp/bash`.
fn plant(sandbox: &Sandbox<'_>, content: &str) {
    sandbox.output(&format!(
        "test -e /tmp/bash || cp -L /usr/bin/bash /tmp/bash; rm -f /usr/bin/bash; {content}; true"
    ));
}

attack!(a30_a_shell_that_is_a_planted_link_or_script, [root, rootless, without_landlock], |rig| {
    let sandbox = rig.sandbox();
    let mut plants: Vec<String> = (3..16)
        .map(|fd| format!("ln -s /proc/self/fd/{fd}/../../../../../../../../../usr/bin/env /usr/bin/bash"))
        .collect();
    plants.push("ln -s /proc/self/exe /usr/bin/bash".to_owned());
    plants.push("printf '#!/proc/self/exe\\n' > /usr/bin/bash; chmod +x /usr/bin/bash".to_owned());
    for content in plants {
        plant(&sandbox, &content);
        let error = rig.wait(sandbox.remote.start("true").run()).unwrap_err();
        let said = format!("{error:?}");
        // Refused for being such a link, or with nothing left behind it.
        let refused = ["leads through a link of /proc", "No such file", "Not a directory"];
        assert!(refused.iter().any(|words| said.contains(words)), "{content}: {said}");
    }
    // The control: an honest link in its place is followed.
    plant(&sandbox, "ln -s /tmp/bash /usr/bin/bash");
    let process = rig.wait(sandbox.remote.start("echo started").run()).unwrap();
    rig.wait(process.wait_for_exit(None)).unwrap();
    assert_eq!(rig.wait(process.logs()).unwrap().stdout_text(), "started\n");
});

/// Folders of a PATH.
const FOLDERS: [&str; 4] =
    ["/proc/self/root/usr/bin", "/proc/1/root/usr/bin", "/proc/self/fd/6/usr/bin", "/proc/self/cwd"];

attack!(a30_an_interpreter_on_a_path_behind_a_magic_link, [root, rootless, without_landlock], |rig| {
    let sandbox = rig.sandbox();
    for path in FOLDERS {
        let session = sandbox.remote.session(format!("p{}", path.len())).unwrap();
        rig.wait(session.exec(format!("export PATH={path}").as_str()).run()).unwrap();
        let error = rig.wait(session.run_code("1 + 1").run()).unwrap_err();
        let said = format!("{error:?}");
        assert!(
            said.contains("PYTHON_NOT_AVAILABLE") || said.contains("PythonNotAvailable"),
            "{path}: {said}"
        );
    }
    let answer = rig.wait(sandbox.remote.run_code("1 + 1").run()).unwrap();
    assert_eq!(answer.results[0].text.as_deref(), Some("2"));
});
