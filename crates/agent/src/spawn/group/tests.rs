use super::*;
use crate::spawn::{Exit, Identity};
use rustix::fd::OwnedFd;
use std::ffi::CString;
use std::path::PathBuf;

/// A delegated directory of this test's own.
struct Base(PathBuf);

impl Base {
    fn new(name: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/mounts").expect("/proc is mounted");
        let root = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1).zip(line.split(' ').nth(2)))
            .find_map(|(at, kind)| (kind == "cgroup2").then_some(at))
            .expect("this test needs a cgroup2 mount");
        let path = format!("{root}/sandcrab-{name}-{}", std::process::id()).into();
        std::fs::create_dir(&path).expect("this test needs root, to make a cgroup");
        Self(path)
    }

    fn spawner(&self) -> Spawner {
        let cgroup = OwnedFd::from(std::fs::File::open(&self.0).expect("the cgroup exists"));
        Spawner::new(Identity { cgroup: Some(cgroup), ..Identity::default() })
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.0).expect("nothing is left in the cgroup");
    }
}

fn start(spawner: &Spawner, script: &str) -> (Group, Child) {
    let args = ["bash", "-c", script].map(|arg| CString::new(arg).expect("no NUL"));
    let env = [c"PATH=/usr/bin:/bin".to_owned()];
    let null = std::fs::File::open("/dev/null").expect("there is a /dev/null");
    let spec = SpawnSpec {
        program: c"/bin/bash",
        args: &args,
        env: &env,
        cwd: None,
        fds: &[(null.as_fd(), 0)],
        cgroup: None,
        subreaper: false,
    };
    Group::start(spawner, &spec).expect("bash starts")
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it happens in time")
}

/// Waits until so many members sleep: they are forked by a shell, whose pace nobody tells.
async fn sleepers(group: &Group, count: usize) {
    let sleeps = |pid: &Pid| held::read_proc(*pid, "comm").is_ok_and(|name| name == b"sleep\n");
    soon(async {
        while group.members().expect("members can be listed").iter().filter(|pid| sleeps(pid)).count() < count
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A leader, a child, and one that has detached as well as it can.
const TREE: &str = "sleep 1000 & (setsid sleep 1000 &) & wait";

async fn p02_a_stop_takes_the_whole_tree(spawner: Spawner) {
    let (group, child) = start(&spawner, TREE);
    sleepers(&group, 2).await;
    soon(group.stop(Signal::TERM, Duration::from_secs(10))).await.expect("it can be stopped");
    assert!(group.is_empty().expect("members can be listed"));
    assert_eq!(soon(child.wait()).await.expect("it can be waited for"), Exit::Signal(15));
    soon(group.emptied()).await.expect("its end can be waited for");
}

async fn p02_what_ignores_the_signal_is_killed_after_the_grace(spawner: Spawner) {
    let (group, child) = start(&spawner, "trap '' TERM; sleep 1000 & (setsid sleep 1000 &) & wait");
    sleepers(&group, 2).await;
    let begin = std::time::Instant::now();
    soon(group.stop(Signal::TERM, Duration::from_millis(100))).await.expect("it can be stopped");
    assert!(begin.elapsed() >= Duration::from_millis(100));
    assert!(group.is_empty().expect("members can be listed"));
    assert_eq!(soon(child.wait()).await.expect("it can be waited for"), Exit::Signal(9));
}

async fn p02_a_group_outlives_its_leader(spawner: Spawner) {
    let (group, child) = start(&spawner, "sleep 1000 & exit 3");
    assert_eq!(soon(child.wait()).await.expect("it can be waited for"), Exit::Code(3));
    assert_eq!(group.members().expect("members can be listed").len(), 1);
    {
        let mut emptied = std::pin::pin!(group.emptied());
        let early = tokio::time::timeout(Duration::from_millis(50), &mut emptied).await;
        assert!(early.is_err(), "one is left");
        group.signal(Signal::TERM).await.expect("it can be signalled");
        soon(emptied).await.expect("its end can be waited for");
    }
    assert!(group.is_empty().expect("members can be listed"));
}

macro_rules! in_both {
    ($($name:ident)*) => {$(
        mod $name {
            #[tokio::test]
            async fn in_a_cgroup() {
                let base = super::Base::new(&stringify!($name)[..8]);
                super::$name(base.spawner()).await;
            }

            #[tokio::test]
            async fn by_descent() {
                super::$name(super::Spawner::new(super::Identity::default())).await;
            }
        }
    )*};
}

in_both! {
    p02_a_stop_takes_the_whole_tree
    p02_what_ignores_the_signal_is_killed_after_the_grace
    p02_a_group_outlives_its_leader
}
