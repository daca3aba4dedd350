//! A native sandbox from creation to its end.
#![expect(clippy::tests_outside_test_module, reason = "a test program is all tests")]

#[expect(dead_code, reason = "shared with test programs that use the rest of it")]
mod common;

use common::{Home, ROOT, USER, chain, config, image, on_host, python, spec};
use sandcrab_api::units::ByteSize;
use sandcrab_runtime::doctor::Feature;
use sandcrab_runtime::native::Native;
use sandcrab_runtime::{Driver, DriverError, Exit, InstanceId, SandboxSpec};
use std::path::{Path, PathBuf};

#[tokio::test]
async fn l01_a_sandbox_runs_commands_as_its_own_root() {
    let home = Home::new();
    let id = home.create("first").await;
    let ran = home
        .run(&id, ROOT, "id -u; id -g; pwd; hostname; echo hello > /etc/greeting; cat /etc/greeting")
        .await;
    assert_eq!(ran.stdout, "0\n0\n/workspace\nfirst\nhello\n", "{}", ran.stderr);
    let ran = home.run(&id, USER, "id -u; touch /workspace/x").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "1000\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("Permission denied"), "{}", ran.stderr);
    home.destroy(&id).await;
    assert!(home.driver.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_instance_whose_agent_died_starts_again_on_its_files() {
    let home = Home::new();
    let id = home.create("again").await;
    home.run(&id, ROOT, "echo kept > /workspace/file; echo kept > /tmp/file; rm /usr/bin/awk").await;
    let pid = home.pid(&id);
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(home.driver.wait_exit(&id).await.unwrap(), Exit::Signal(9));
    assert!(!home.driver.inspect(&id).await.unwrap().unwrap().running);
    home.driver.start(&id).await.unwrap_or_else(|error| panic!("start: {}", common::chain(&error)));
    let ran = home.run(&id, ROOT, "cat /workspace/file /tmp/file; ls /usr/bin/awk").await;
    assert_eq!(ran.stdout, "kept\nkept\n", "{}", ran.stderr);
    home.destroy(&id).await;
}

#[tokio::test]
async fn l05_a_start_that_nobody_waits_for_leaves_nothing_running() {
    let home = Home::new();
    let id = home.create("again").await;
    home.run(&id, ROOT, "echo kept > /workspace/file").await;
    home.driver.stop(&id).await.unwrap();
    for _ in 0..4 {
        {
            let mut start = home.driver.start(&id);
            std::future::poll_fn(|context| {
                assert!(start.as_mut().poll(context).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
            // Long enough for the thread to have begun, mostly.
            let gone = tokio::time::timeout(std::time::Duration::from_millis(2), start).await;
            assert!(gone.is_err(), "a start takes longer");
        }
        // Takes its turn behind the one that was given up.
        home.driver.stop(&id).await.unwrap();
        assert!(!home.driver.inspect(&id).await.unwrap().unwrap().running);
    }
    home.driver.start(&id).await.unwrap_or_else(|error| panic!("start: {}", common::chain(&error)));
    assert_eq!(home.run(&id, ROOT, "cat /workspace/file").await.stdout, "kept\n");
    home.destroy(&id).await;
}

/// Everything on the machine that bears an instance's name or comes from its data directory.
fn traces(home: &Home, id: &InstanceId) -> Vec<String> {
    let data = home.dir.path().join("data");
    let find = format!(
        "find /sys/fs/cgroup {} -name '*{id}*' 2>/dev/null; grep -l {id} /proc/[0-9]*/cgroup 2>/dev/null; \
         grep -H {id} /proc/[0-9]*/mountinfo 2>/dev/null; grep -H {id} /sys/block/loop*/loop/backing_file 2>/dev/null; \
         grep -rl {id} {}/ids 2>/dev/null; true",
        data.display(),
        data.display()
    );
    on_host(&find).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn l06_destroy_frees_everything() {
    let home = Home::new();
    let id = home.create("l06").await;
    let first = home.pid(&id);
    let busy = "cd /tmp && dd if=/dev/zero of=big bs=1M count=32 2>/dev/null; mkfifo f; \
                (setsid nohup sleep 1000 >/dev/null 2>&1 &); (trap '' TERM INT HUP; while :; do sleep 1000; done) >/dev/null 2>&1 & \
                dd if=/dev/zero of=/dev/shm/s bs=1M count=8 2>/dev/null; echo made";
    assert_eq!(home.run(&id, ROOT, busy).await.stdout, "made\n");
    let namespace = std::fs::read_link(format!("/proc/{first}/ns/net")).unwrap();
    let before = traces(&home, &id);
    for what in ["cgroup", "backing_file", "instances", "sockets", "/ids/"] {
        assert!(
            before.iter().any(|trace| trace.contains(what)),
            "{what} is seen while it lives: {before:#?}"
        );
    }
    home.destroy(&id).await;
    assert_eq!(traces(&home, &id), Vec::<String>::new());
    assert!(!Path::new(&format!("/proc/{first}/ns")).exists());
    let holders = on_host("readlink /proc/[0-9]*/ns/net 2>/dev/null || true");
    assert!(!holders.contains(namespace.to_str().unwrap()), "nobody is in its network namespace");
    home.destroy(&id).await;

    // Its id and its name are free again, and what comes back is empty.
    home.driver.create(&id, &spec("l06")).await.unwrap();
    let ran = home.run(&id, ROOT, "ls -A /tmp /workspace /dev/shm; pgrep sleep; true").await;
    assert_eq!(ran.stdout, "/dev/shm:\n\n/tmp:\n\n/workspace:\n", "{}", ran.stderr);
    home.destroy(&id).await;
}

#[tokio::test]
async fn l01_a_failed_creation_leaves_nothing() {
    let home = Home::new();
    let mut broken = image(home.dir.path());
    broken.trees[1].layers.push(PathBuf::from("/nonexistent/layer"));
    home.driver.add_image("broken", broken);
    let id = InstanceId::random();
    let error =
        home.driver.create(&id, &SandboxSpec { image: "broken".into(), ..spec("l01") }).await.unwrap_err();
    assert!(matches!(error, DriverError::Launch { .. }), "{}", chain(&error));
    assert!(chain(&error).contains("/nonexistent/layer"), "{}", chain(&error));
    assert_eq!(traces(&home, &id), Vec::<String>::new());

    let error =
        home.driver.create(&id, &SandboxSpec { image: "other".into(), ..spec("l01") }).await.unwrap_err();
    assert!(matches!(error, DriverError::ImageNotFound { .. }), "{}", chain(&error));
    home.driver.create(&id, &spec("l01")).await.unwrap();
    let twice = home.driver.create(&id, &spec("l01")).await.unwrap_err();
    assert!(matches!(twice, DriverError::Io { .. }), "{}", chain(&twice));
    assert_eq!(home.run(&id, ROOT, "echo untouched").await.stdout, "untouched\n");
    home.destroy(&id).await;
}

#[tokio::test]
async fn l01_a_creation_that_nobody_waits_for_is_undone() {
    let home = Home::new();
    let id = InstanceId::random();
    let asked = spec("l01-gone");
    {
        let mut creation = home.driver.create(&id, &asked);
        // Begun, and then dropped before it is done.
        std::future::poll_fn(|context| {
            assert!(creation.as_mut().poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
    }
    // Opening the data directory's list waits for no one: ask until the creation has been undone, within a bound.
    let undone = async {
        loop {
            if traces(&home, &id).is_empty() && home.driver.list().await.unwrap().is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), undone).await.expect("it is undone");
}

#[tokio::test]
async fn l05_a_new_driver_finds_what_the_old_one_made() {
    let home = Home::new();
    let id = home.create("l05").await;
    home.run(&id, ROOT, "nohup sleep 1000 >/dev/null 2>&1 & echo kept > /workspace/file").await;
    let second = Native::open(config(home.dir.path())).unwrap();
    let found = second.list().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id, id);
    assert!(found[0].running);
    assert_eq!(found[0].spec.sandbox.as_str(), "l05");
    // Through the old one, which is as good as the new: both only look at what is there.
    let ran = home.run(&id, ROOT, "pgrep -c sleep; cat /workspace/file").await;
    assert_eq!(ran.stdout, "1\nkept\n");
    second.destroy(&id).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(traces(&home, &id), Vec::<String>::new());
    assert_eq!(second.list().await.unwrap(), []);
}

#[tokio::test]
async fn e09_left_overs_of_an_interrupted_creation_are_removed() {
    let home = Home::new();
    let id = home.create("e09").await;
    // As if the server had been killed before it could say that the creation was finished.
    std::fs::remove_file(home.dir.path().join("data/instances").join(id.as_str()).join("ready")).unwrap();
    let second = Native::open(config(home.dir.path())).unwrap();
    assert_eq!(second.list().await.unwrap(), []);
    second.tidy().await.unwrap();
    assert_eq!(traces(&home, &id), Vec::<String>::new());
}

/// What of the host's belongs to one of these user ids: processes, and files of the data directory.
fn owned(home: &Home, uids: &std::ops::Range<u32>) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let is_process = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        if is_process && entry.metadata().is_ok_and(|meta| uids.contains(&meta.uid())) {
            found.push(entry.path().display().to_string());
        }
    }
    let mut todo = vec![home.dir.path().to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if uids.contains(&meta.uid()) || uids.contains(&meta.gid()) {
                found.push(entry.path().display().to_string());
            }
            if meta.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    found
}

#[tokio::test]
async fn c09_user_ids_that_are_given_again_own_nothing() {
    let home = Home::new();
    let leave = "for d in /workspace /tmp /dev/shm /run; do echo secret > $d/left; done; (setsid sleep 1000 >/dev/null 2>&1 </dev/null &); ipcmk -Q -M 4096 >/dev/null; echo left";
    let mut ranges = Vec::new();
    for round in 0..3 {
        let id = home.create("c09").await;
        let map = std::fs::read_to_string(format!("/proc/{}/uid_map", home.pid(&id))).unwrap();
        let fields: Vec<u32> = map.split_whitespace().take(3).map(|field| field.parse().unwrap()).collect();
        let uids = fields[1]..fields[1] + fields[2];
        for uid in [ROOT, USER] {
            assert!(home.run(&id, uid, leave).await.stdout.ends_with("left\n"));
        }
        assert!(!owned(&home, &uids).is_empty(), "its processes are its own");
        let before = home.run(&id, ROOT, "ls /workspace /tmp /dev/shm /run; ipcs -q -m | grep -c 0x").await;
        assert!(before.stdout.contains("left"), "{before:?}");
        home.destroy(&id).await;
        assert_eq!(owned(&home, &uids), Vec::<String>::new(), "round {round}");
        ranges.push(uids);
    }
    // Which range the next one gets is the driver's business; whichever it is, nothing is there.
    let id = home.create("c09").await;
    let look = "find /workspace /tmp /dev/shm /run /root -name left; ipcs -q -m -s | grep 0x; pgrep -x sleep";
    let seen = home.run(&id, ROOT, look).await;
    assert_eq!(seen.stdout, "", "{seen:?}");
    home.destroy(&id).await;
}

#[tokio::test]
async fn e01_e02_e03_limits_hold() {
    let home = Home::new();
    let id = InstanceId::random();
    let mut limited = spec("limits");
    limited.limits.memory = Some(ByteSize(96 << 20));
    limited.limits.disk = Some(ByteSize(64 << 20));
    limited.limits.pids = Some(32);
    limited.limits.cpu = Some(0.5);
    home.driver.create(&id, &limited).await.unwrap_or_else(|error| panic!("{}", chain(&error)));

    let memory = home
        .run(
            &id,
            ROOT,
            "python3 -c 'print(len(bytearray(10 << 20)))'; python3 -c 'bytearray(500 << 20)'; echo $?",
        )
        .await;
    assert_eq!(memory.stdout, "10485760\n137\n", "{}", memory.stderr);
    let stats = home.driver.stats(&id).await.unwrap();
    assert_eq!(stats.oom_kills, Some(1));
    assert!(stats.memory_peak.unwrap() > 90 << 20, "{stats:?}");

    let disk = home.run(&id, ROOT, "dd if=/dev/zero of=/workspace/big bs=1M count=200 2>&1; rm /workspace/big; echo fits > /tmp/x; cat /tmp/x").await;
    assert!(disk.stdout.contains("No space left on device"), "{}", disk.stdout);
    assert!(disk.stdout.ends_with("fits\n"), "{}", disk.stdout);
    let inodes =
        home.run(&id, ROOT, "cd /tmp; for i in $(seq 5000); do : > f$i || break; done 2>&1 | head -1").await;
    assert!(inodes.stdout.contains("No space left"), "{}", inodes.stdout);

    let pids = home.run(&id, ROOT, "for i in $(seq 40); do sleep 5 & done 2>&1; kill %1; true").await;
    assert!(pids.stdout.contains("Resource temporarily unavailable"), "{}{}", pids.stdout, pids.stderr);
    let cpus = home.run(&id, USER, "nproc").await;
    assert_eq!(cpus.stdout, "1\n", "half a CPU is seen as one");
    home.destroy(&id).await;
}

/// Runs again as another user if it is root: a rootless server has one uid and no rights at all.
#[test]
fn a_rootless_server_makes_sandboxes_with_what_one_uid_has() {
    const NOBODY: &str = "65534";
    if rustix::process::geteuid().is_root() {
        let program = std::env::current_exe().unwrap();
        let output = on_host(&format!(
            "setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --inh-caps=-all --no-new-privs {} --exact \
             a_rootless_server_makes_sandboxes_with_what_one_uid_has --nocapture 2>&1",
            program.display()
        ));
        assert!(output.contains("rootless sandbox destroyed"), "{output}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let error = Native::open(config(dir.path())).unwrap_err();
        assert!(matches!(error, DriverError::Missing { feature: Feature::Cgroup, .. }), "{}", chain(&error));
        assert!(chain(&error).contains("--allow-missing cgroup"), "{}", chain(&error));

        let home = Home::rootless();
        let id = home.create("rootless").await;
        let ran = home
            .run(&id, ROOT, "id -u; cat /proc/self/uid_map | tr -s ' '; echo x > /etc/file; cat /etc/file")
            .await;
        assert_eq!(ran.stdout, "0\n 0 65534 1\nx\n", "{}", ran.stderr);
        let script = python(
            "
import resource, signal
limit = (ctypes.c_uint64 * 2)(3, 3)
print('prlimit:', call(302, 1, resource.RLIMIT_NOFILE, limit, None))
print('kill:', attempt(lambda: os.kill(1, signal.SIGCHLD)))
print('setpriority:', attempt(lambda: os.setpriority(os.PRIO_PROCESS, 1, 19)))
print('affinity:', attempt(lambda: os.sched_setaffinity(1, {0})))
print('ptrace:', call(101, 0x4206, 1, 0, 0))
print('environ:', attempt(lambda: open('/proc/1/environ')))
print('mem:', attempt(lambda: open('/proc/1/mem')))
print('fd:', attempt(lambda: os.readlink('/proc/1/fd/4')))
print('mount:', call(165, b'tmpfs', b'/tmp', b'tmpfs', 0, None))
print('user namespace:', call(272, 0x10000000))
",
        );
        let ran = home.run(&id, ROOT, &script).await;
        for line in ran.stdout.lines() {
            assert!(line.ends_with(": EPERM") || line.ends_with(": EACCES"), "{line}");
        }
        assert_eq!(ran.stdout.lines().count(), 10, "{}", ran.stderr);
        // Writing to the covers is writing to nothing.
        let oom = "cat /proc/1/oom_score_adj; echo 1000 > /proc/1/oom_score_adj; ls /proc/1/task | wc -l";
        assert_eq!(home.run(&id, ROOT, oom).await.stdout, "0\n");
        let first = home.pid(&id);
        assert_eq!(std::fs::read_to_string(format!("/proc/{first}/oom_score_adj")).unwrap(), "0\n");
        home.run(&id, ROOT, "nohup sleep 1000 >/dev/null 2>&1 & echo kept > /workspace/f").await;
        home.destroy(&id).await;
        assert!(!Path::new(&format!("/proc/{first}/ns")).exists());
        assert_eq!(home.driver.list().await.unwrap(), []);
        assert_eq!(std::fs::read_dir(home.dir.path().join("data/instances")).unwrap().count(), 0);
    });
    println!("rootless sandbox destroyed");
}

#[tokio::test]
async fn e09_many_at_once_leave_nothing() {
    let home = std::sync::Arc::new(Home::new());
    let workers: Vec<_> = (0..6)
        .map(|worker| {
            let home = home.clone();
            tokio::spawn(async move {
                for round in 0..4 {
                    let id = home.create(&format!("many-{worker}-{round}")).await;
                    let ran = home.run(&id, ROOT, "hostname; echo $$ > /tmp/file").await;
                    assert_eq!(ran.stdout, format!("many-{worker}-{round}\n"), "{}", ran.stderr);
                    home.destroy(&id).await;
                    assert_eq!(traces(&home, &id), Vec::<String>::new());
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let data = home.dir.path().join("data");
    for dir in ["instances", "sockets", "ids"] {
        assert_eq!(std::fs::read_dir(data.join(dir)).unwrap().count(), 0, "{dir}");
    }
    let mounted = on_host(&format!("grep -c {} /proc/self/mountinfo || true", data.display()));
    assert_eq!(mounted, "0\n");
}

/// Waits for nothing: all that is asked for at once takes turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l06_destroying_what_is_being_made_or_started_leaves_nothing() {
    let home = std::sync::Arc::new(Home::new());
    let asked = spec("turns");
    for round in 0..6 {
        let id = InstanceId::random();
        let creating = {
            let (home, id, asked) = (home.clone(), id.clone(), asked.clone());
            tokio::spawn(async move { home.driver.create(&id, &asked).await })
        };
        // At another point of the creation each time.
        tokio::time::sleep(std::time::Duration::from_millis(round * 7)).await;
        home.destroy(&id).await;
        let created = creating.await.unwrap();
        // It was destroyed when it was made, or before anyone had begun to make it.
        home.destroy(&id).await;
        assert_eq!(traces(&home, &id), Vec::<String>::new(), "round {round}: {created:?}");
    }
    for round in 0..6 {
        let id = home.create("turns").await;
        let pid = rustix::process::Pid::from_raw(home.pid(&id)).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        home.driver.wait_exit(&id).await.unwrap();
        let starting: Vec<_> = (0..2)
            .map(|_| {
                let (home, id) = (home.clone(), id.clone());
                tokio::spawn(async move { home.driver.start(&id).await })
            })
            .collect();
        tokio::time::sleep(std::time::Duration::from_millis(round * 7)).await;
        home.destroy(&id).await;
        for start in starting {
            match start.await.unwrap() {
                Ok(instance) => assert!(instance.running),
                Err(error) => assert!(matches!(error, DriverError::NotFound { .. }), "{}", chain(&error)),
            }
        }
        assert_eq!(traces(&home, &id), Vec::<String>::new(), "round {round}");
    }
    let data = home.dir.path().join("data");
    for dir in ["instances", "sockets", "ids"] {
        assert_eq!(std::fs::read_dir(data.join(dir)).unwrap().count(), 0, "{dir}");
    }
}

/// Each point at which a server can be killed while it makes or removes an instance, by what it leaves.
#[tokio::test]
async fn e09_left_overs_of_a_kill_at_any_point_are_removed() {
    let home = Home::new();
    let data = home.dir.path().join("data");
    let instances = data.join("instances");
    let dir = |id: &InstanceId| instances.join(id.as_str());
    let fresh = || Native::open(config(home.dir.path())).unwrap();
    let nothing_is_left = || {
        for name in ["instances", "sockets", "ids"] {
            let left: Vec<_> =
                std::fs::read_dir(data.join(name)).unwrap().map(|e| e.unwrap().path()).collect();
            assert_eq!(left, Vec::<PathBuf>::new());
        }
    };

    // The range was taken, and named or not; the directory was made, and the record was not yet in its place.
    let id = InstanceId::random();
    std::fs::write(data.join("ids/17"), id.as_str()).unwrap();
    std::fs::write(data.join("ids/18"), "").unwrap();
    std::fs::create_dir(dir(&id)).unwrap();
    std::fs::write(dir(&id).join("record.new"), "{").unwrap();
    let found = async || {
        let driver = fresh();
        let found = driver.list().await.unwrap();
        driver.tidy().await.unwrap();
        assert_eq!(driver.quarantined(), []);
        found
    };
    assert_eq!(found().await, []);
    nothing_is_left();

    // It was being removed: no longer whole, some of its files gone, or all but its record, or that too.
    for gone in [&["ready"][..], &["ready", "pid"], &["ready", "pid", "device", "disk.img", "agent.log"]] {
        let id = home.create("cut").await;
        let pid = rustix::process::Pid::from_raw(home.pid(&id)).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        home.driver.wait_exit(&id).await.unwrap();
        for name in gone {
            std::fs::remove_file(dir(&id).join(name)).unwrap();
        }
        assert_eq!(found().await, [], "{gone:?}");
        assert_eq!(traces(&home, &id), Vec::<String>::new(), "{gone:?}");
        nothing_is_left();
        home.destroy(&id).await;
    }
    let id = InstanceId::random();
    std::fs::create_dir(dir(&id)).unwrap();
    assert_eq!(found().await, []);
    nothing_is_left();
}

#[tokio::test]
async fn a07_what_is_planted_in_a_sandbox_does_not_keep_it_from_starting() {
    let home = Home::new();
    let id = home.create("planted").await;
    for plant in [
        "rm -rf /.sandcrab; echo planted > /.sandcrab; echo planted > /.writable",
        "rm -rf /.sandcrab /.writable; ln -s /etc /.sandcrab; ln -s /etc/passwd /.writable",
        "rm -rf /.sandcrab /.writable; mkdir -m 777 /.sandcrab /.writable; touch /.sandcrab/planted",
    ] {
        // The name under which earlier releases kept output that does not fit memory, and that of the proof of a write.
        let planted = home.run(&id, ROOT, &format!("{plant}; ls -d /.sandcrab")).await;
        assert_eq!(planted.stdout, "/.sandcrab\n", "{}", planted.stderr);
        let pid = rustix::process::Pid::from_raw(home.pid(&id)).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        home.driver.wait_exit(&id).await.unwrap();
        home.driver.start(&id).await.unwrap_or_else(|error| panic!("{plant}: {}", chain(&error)));
        let ran = home.run(&id, ROOT, "stat -c %a /etc; ls -d /.sandcrab; cat /etc/passwd").await;
        assert!(ran.stdout.starts_with("755\n/.sandcrab\nroot:"), "{plant}: {}{}", ran.stdout, ran.stderr);
    }
    home.destroy(&id).await;
}

#[tokio::test]
async fn e02_a_sandbox_for_which_nothing_was_asked_has_limits() {
    let home = Home::new();
    let id = home.create("e02").await;
    let limits = home.driver.inspect(&id).await.unwrap().unwrap().spec.limits;
    let total = on_host("awk '/^MemTotal/ { print $2 * 1024 }' /proc/meminfo");
    let half = total.trim().parse::<f64>().unwrap() as u64 / 2;
    let memory = limits.memory.expect("memory is limited").0;
    // The kernel counts in whole kibibytes.
    assert!(memory <= 4 << 30 && memory.abs_diff(half.min(4 << 30)) < 4096, "{memory} of {half}");
    assert!(limits.disk.is_some() && limits.pids.is_some(), "{limits:?}");
    let set = format!(
        "find /sys/fs/cgroup -path '*{id}/memory.max' -o -path '*{id}/memory.limit_in_bytes' | xargs cat"
    );
    assert_eq!(on_host(&set).trim().parse::<u64>().unwrap(), memory / 4096 * 4096);
    home.destroy(&id).await;
}
