//! Many lives with hostile contents, many at a time: all that they took of the host comes back (E09).
//!
//! `SANDCRAB_LIVES=1000 SANDCRAB_AT_ONCE=100` makes it the full measure; the figures are printed.

use crate::rig::{Mode, Rig};
use sandcrab_client::{Client, SandboxOptions};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

fn from_environment(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// What makes a sandbox hard to take away: processes that dodge signals and keep files busy, links where a privileged
/// stage might look, deep and closed directories, special files, queues and shared memory, and bytes on its disk.
const HOSTILE: &str = r#"
trap '' HUP INT TERM QUIT USR1
for n in 1 2 3; do (trap '' HUP INT TERM; setsid sleep 1000 3</workspace 4>/tmp/busy-$n &); done
ipcmk -Q -M 65536 -S 4 >/dev/null
mkfifo /tmp/fifo; (exec 5<>/tmp/fifo; setsid sleep 1000 &)
head -c 2M /dev/urandom > /workspace/bytes; head -c 1M /dev/zero > /dev/shm/bytes; : > /dev/mqueue/queue 2>/dev/null
d=/workspace; for n in {1..40}; do d=$d/$n-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done; mkdir -p $d; chmod 0 /workspace/1-*
ln -s /proc/self/fd/6/../../../../.. /workspace/out; ln -s /proc/1/root /workspace/root
mv /var /var.old 2>/dev/null; ln -s /proc/self/fd/7/../../.. /var; mv /tmp /tmp.old; ln -s /proc/self/cwd /tmp
rm -rf /.sandcrab /etc/passwd; exec -a '../../../etc' true
"#;

/// What the host holds for a server.
#[derive(Debug)]
struct Held {
    mounts: usize,
    loops: usize,
    groups: usize,
    processes: usize,
    instances: usize,
    sockets: usize,
    ids: usize,
    descriptors: usize,
    disk: u64,
    memory: u64,
}

fn entries(path: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(path).map_or_else(|_| Vec::new(), |found| found.flatten().map(|e| e.path()).collect())
}

fn used(path: &Path) -> u64 {
    let Ok(found) = path.symlink_metadata() else { return 0 };
    let below = if found.is_dir() { entries(path).iter().map(|path| used(path)).sum() } else { 0 };
    found.blocks() * 512 + below
}

/// Control groups of these instances, in every hierarchy.
fn groups(instances: &BTreeSet<String>) -> usize {
    let mut todo = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut count = 0;
    while let Some(dir) = todo.pop() {
        let below: Vec<PathBuf> = entries(&dir).into_iter().filter(|path| path.is_dir()).collect();
        count += below
            .iter()
            .filter(|path| instances.contains(&*path.file_name().unwrap().to_string_lossy()))
            .count();
        todo.extend(below);
    }
    count
}

fn held(rig: &Rig, instances: &BTreeSet<String>) -> Held {
    let data = rig.data_dir().canonicalize().unwrap();
    let mounted = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let loops = entries(Path::new("/sys/block")).into_iter().filter(|device| {
        let file = std::fs::read_to_string(device.join("loop/backing_file")).unwrap_or_default();
        Path::new(file.trim()).starts_with(&data)
    });
    let processes = entries(Path::new("/proc")).into_iter().filter(|process| {
        let groups = std::fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        instances.iter().any(|id| groups.contains(&format!("/sandcrab/{id}")))
    });
    let server = PathBuf::from(format!("/proc/{}", rig.server_pid()));
    let status = std::fs::read_to_string(server.join("status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let memory: u64 = memory.trim().trim_end_matches(" kB").parse().unwrap();
    Held {
        mounts: mounted.lines().filter(|line| line.contains(data.to_str().unwrap())).count(),
        loops: loops.count(),
        groups: groups(instances),
        processes: processes.count(),
        // Beside them lies the file that names the database.
        instances: entries(&data.join("instances")).into_iter().filter(|path| path.is_dir()).count(),
        sockets: entries(&data.join("sockets")).len(),
        ids: entries(&data.join("ids")).len(),
        descriptors: entries(&server.join("fd")).len(),
        disk: used(&data),
        memory: memory << 10,
    }
}

async fn live(client: &Client, id: String, data: &Path, seen: &Mutex<BTreeSet<String>>) {
    let sandbox = client.sandbox(&id, SandboxOptions::default()).unwrap();
    sandbox.exec(HOSTILE).await.unwrap_or_else(|error| panic!("{id}: {error}"));
    let names = entries(&data.join("instances")).into_iter().filter(|path| path.is_dir());
    seen.lock().unwrap().extend(names.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()));
    sandbox.destroy().await.unwrap_or_else(|error| panic!("{id}: {error}"));
}

/// So many lives, so many of them at a time.
fn lives(rig: &Rig, name: &str, count: usize, at_once: usize, seen: &Mutex<BTreeSet<String>>) -> Duration {
    let begun = Instant::now();
    let (client, data) = (rig.client(), rig.data_dir());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let workers = (0..at_once).map(|worker| {
            let (client, data) = (&client, &data);
            async move {
                for number in (worker..count).step_by(at_once) {
                    live(client, format!("churn-{name}-{number}"), data, seen).await;
                }
            }
        });
        futures_util::future::join_all(workers).await;
    });
    begun.elapsed()
}

attack!(e09_hostile_lives_give_back_all_that_they_took, [root, rootless], |shared| {
    let (count, at_once) = (from_environment("SANDCRAB_LIVES", 20), from_environment("SANDCRAB_AT_ONCE", 10));
    // What a user may have of what is counted per user bounds how many a rootless server has at a time.
    let at_once = if shared.mode == Mode::Rootless { at_once.min(20) } else { at_once };
    let rig = shared.apart("churn");
    // A run that was cut short has left some.
    let client = rig.client();
    for left in rig.wait(client.sandboxes(&[])).unwrap() {
        let sandbox = client.sandbox(left.id.as_str(), SandboxOptions::default()).unwrap();
        rig.wait(sandbox.destroy()).unwrap();
    }
    let seen = Mutex::new(BTreeSet::new());
    // The first ones make what the server keeps: threads, caches, a template.
    lives(&rig, "first", at_once, at_once, &seen);
    let before = held(&rig, &seen.lock().unwrap());
    let took = lives(&rig, "then", count, at_once, &seen);
    let seen = seen.into_inner().unwrap();
    assert!(seen.len() >= count, "{} of {count} lives were seen", seen.len());
    // Connections of the client that is gone close when the server has heard of it.
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut after = held(&rig, &seen);
    while after.descriptors > before.descriptors + 4 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
        after = held(&rig, &seen);
    }
    println!("{count} lives, {at_once} at a time, {:?}: {took:.1?}\n  {before:?}\n  {after:?}", rig.mode);
    let Held { mounts, loops, groups, processes, instances, sockets, ids, .. } = after;
    assert_eq!([mounts, loops, groups, processes, instances, sockets, ids], [0; 7], "{after:?}");
    assert!(after.descriptors <= before.descriptors + 4, "{before:?} {after:?}");
    // The store remembers what happened; nothing else grows.
    assert!(after.disk <= before.disk + (4 << 20) + 8192 * count as u64, "{before:?} {after:?}");
    assert!(after.memory <= before.memory + (32 << 20), "{before:?} {after:?}");
});
