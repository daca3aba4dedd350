//! That the modes are what they say.

use crate::rig::Mode;

attack!(a29_each_mode_is_what_it_says, [root, rootless, without_landlock], |rig| {
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.server_pid())).unwrap();
    let uid = if rig.mode == Mode::Rootless { "65534" } else { "0" };
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    assert!(uids.split_whitespace().all(|id| id == uid), "{uids}");
    assert!(rig.data_dir().join("sandcrab.db").exists());

    let sandbox = rig.sandbox();
    let info = rig.wait(sandbox.remote.info()).unwrap();
    let expected: &[&str] = if rig.mode == Mode::Rootless { &["memory", "cpu", "disk"] } else { &[] };
    assert_eq!(info.not_enforced, expected, "callers are told");
    // A process that could restrict itself further gets a descriptor or EINVAL, never ENOSYS.
    let program = "print(call(444, 0, 0, 1))"; // LANDLOCK_CREATE_RULESET_VERSION
    let expected = if rig.mode == Mode::WithoutLandlock { "ENOSYS" } else { "ok" };
    assert_eq!(sandbox.python(program).trim(), expected);
    let ids = sandbox.output("wc -l < /proc/self/uid_map; id -u; awk '{ print $3 }' /proc/self/uid_map");
    let count = if rig.mode == Mode::Rootless { "1" } else { "65536" };
    assert_eq!(ids.split_whitespace().collect::<Vec<_>>(), ["1", "0", count]);
    if rig.mode != Mode::Rootless {
        assert_eq!(sandbox.run_as_user("id -u").stdout_text(), "1000\n");
    }
});

// What people write in scripts works in each mode: streams opened again by their names, as root and as another user.
attack!(s02_streams_can_be_opened_by_name, [root, rootless, without_landlock], |rig| {
    let sandbox = rig.sandbox();
    let script = "echo a >/dev/stdout; echo b >/dev/stderr; echo c | tee /dev/stderr >/dev/null; \
                  echo d >/proc/self/fd/1; python3 -c 'open(\"/dev/stdout\", \"w\").write(\"e\\n\")'";
    let check = |ran: &sandcrab_client::ExecOutput| {
        assert_eq!(ran.stdout_text(), "a\nd\ne\n", "{}", ran.stderr_text());
        assert_eq!(ran.stderr_text(), "b\nc\n");
    };
    check(&sandbox.run(script));
    if rig.mode != Mode::Rootless {
        check(&sandbox.run_as_user(script));
    }
    let with_stdin = rig.wait(sandbox.remote.exec("cat /dev/stdin").stdin("given").run()).unwrap();
    assert_eq!(with_stdin.stdout_text(), "given");
    let process = rig.wait(sandbox.remote.start(script).run()).unwrap();
    rig.wait(process.wait_for_exit(None)).unwrap();
    let logs = rig.wait(process.logs()).unwrap();
    assert_eq!((logs.stdout_text().as_ref(), logs.stderr_text().as_ref()), ("a\nd\ne\n", "b\nc\n"));
    let code = "import os\nos.system('echo a >/dev/stdout')\nopen('/dev/stderr', 'w').write('b')";
    let ran = sandbox.output(&format!("cat >/tmp/code.py <<'E'\n{code}\nE\npython3 /tmp/code.py 2>&1"));
    assert_eq!(ran, "a\nb");
    let ran = rig.wait(sandbox.remote.run_code(code).run()).unwrap();
    assert!(ran.outcome.error.is_none(), "{ran:?}");
});
