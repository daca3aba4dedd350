//! That the modes are what they say.

use crate::rig::Mode;

attack!(a29_each_mode_is_what_it_says, [root, rootless, without_landlock], |rig| {
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.server_pid())).unwrap();
    let uid = if rig.mode == Mode::Rootless { "65534" } else { "0" };
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    assert!(uids.split_whitespace().all(|id| id == uid), "{uids}");
    assert!(rig.data_dir().join("sandcrab.db").exists());

    let sandbox = rig.sandbox();
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
