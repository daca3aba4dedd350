//! What a start of the driver makes of whatever it finds.
#![expect(clippy::tests_outside_test_module, reason = "a test program is all tests")]
#![expect(clippy::unwrap_used, reason = "a test program is all tests")]

#[expect(dead_code, reason = "shared with test programs that use the rest of it")]
mod common;

use common::{Home, ROOT, chain, config, image, on_host, spec};
use sandcrab_runtime::native::Native;
use sandcrab_runtime::{Driver, DriverError, Exit, InstanceId, SandboxSpec};
use std::path::PathBuf;

fn dir(home: &Home, id: &InstanceId) -> PathBuf {
    home.dir.path().join("data/instances").join(id.as_str())
}

fn again(home: &Home) -> Native {
    let driver = Native::open(config(home.dir.path())).unwrap_or_else(|error| panic!("{}", chain(&error)));
    driver.add_image("test", image(home.dir.path()));
    driver
}

async fn killed(home: &Home, id: &InstanceId) {
    let pid = rustix::process::Pid::from_raw(home.pid(id)).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(home.driver.wait_exit(id).await.unwrap(), Exit::Signal(9));
}

#[tokio::test]
async fn e15_what_is_wrong_with_one_instance_keeps_no_other_from_being_found() {
    let home = Home::new();
    let good = home.create("good").await;
    let mut bad = Vec::new();
    for (name, content) in [("empty", ""), ("half", "{\"id\":"), ("other", "{}")] {
        let id = home.create(name).await;
        home.driver.acknowledge(&id).await.unwrap();
        std::fs::write(dir(&home, &id).join("record.json"), content).unwrap();
        bad.push(id);
    }
    // No record at all, a directory in its place, and that of another instance.
    for plant in ["", "mkdir record.json", "cp ../OTHER/record.json ."] {
        let id = home.create("planted").await;
        home.driver.acknowledge(&id).await.unwrap();
        let plant = plant.replace("OTHER", good.as_str());
        on_host(
            &format!("cd {} && rm record.json && {{ {plant}\n}}", dir(&home, &id).display())
                .replace("{ \n}", "true"),
        );
        bad.push(id);
    }
    let driver = again(&home);
    let found: Vec<_> = driver.list().await.unwrap().into_iter().map(|instance| instance.id).collect();
    assert_eq!(found, std::slice::from_ref(&good));
    driver.tidy().await.unwrap();
    let mut set_aside: Vec<_> = driver.quarantined().into_iter().map(|one| one.id).collect();
    set_aside.sort();
    bad.sort();
    assert_eq!(set_aside, bad);
    for id in &bad {
        assert!(dir(&home, id).join("disk.img").exists(), "it stays as it is");
    }
    // Each can be taken away, with all that runs of it.
    for id in &bad {
        let pid = home.pid(id);
        driver.destroy(id).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
        // The other driver is its parent.
        home.driver.wait_exit(id).await.unwrap();
        assert!(!dir(&home, id).exists() && !PathBuf::from(format!("/proc/{pid}/ns")).exists());
    }
    assert_eq!(driver.quarantined(), []);
    assert_eq!(home.run(&good, ROOT, "echo serves").await.stdout, "serves\n");
    driver.tidy().await.unwrap();
    assert_eq!(std::fs::read_dir(home.dir.path().join("data/ids")).unwrap().count(), 1);
    for id in bad.iter().chain([&good]) {
        home.destroy(id).await;
    }
}

#[tokio::test]
async fn e15_only_what_nobody_was_told_of_is_a_left_over() {
    let home = Home::new();
    let (told, untold) = (home.create("told").await, home.create("untold").await);
    home.driver.acknowledge(&told).await.unwrap();
    for id in [&told, &untold] {
        killed(&home, id).await;
    }
    let driver = again(&home);
    let mut found = driver.list().await.unwrap();
    found.sort_by_key(|instance| !instance.acknowledged);
    let seen: Vec<_> = found.iter().map(|instance| (&instance.id, instance.acknowledged)).collect();
    assert_eq!(seen, [(&told, true), (&untold, false)]);
    // The mark is there and the rest of the creation is not, as no order of writes leaves it: set aside, not removed.
    std::fs::remove_file(dir(&home, &told).join("ready")).unwrap();
    std::fs::remove_file(dir(&home, &untold).join("ready")).unwrap();
    let driver = again(&home);
    assert_eq!(driver.list().await.unwrap(), []);
    driver.tidy().await.unwrap();
    assert_eq!(driver.quarantined().iter().map(|one| &one.id).collect::<Vec<_>>(), [&told]);
    assert!(dir(&home, &told).join("disk.img").exists() && !dir(&home, &untold).exists());
    driver.destroy(&told).await.unwrap();
    for id in [&told, &untold] {
        home.destroy(id).await;
    }
}

#[tokio::test]
async fn e15_the_id_of_the_database_is_kept_with_the_instances() {
    let home = Home::new();
    assert_eq!(home.driver.database().await.unwrap(), None);
    home.driver.set_database("one").await.unwrap();
    assert_eq!(again(&home).database().await.unwrap().as_deref(), Some("one"));
    assert_eq!(again(&home).list().await.unwrap(), []);
}

/// Waits until no child of this process has ended whose status nobody took: other tests' are taken at some time.
async fn no_zombies() {
    let of = format!("ps --ppid {} -o stat= || true", std::process::id());
    let gone = async {
        while on_host(&of).lines().any(|state| state.starts_with('Z')) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.expect("zombies stay");
}

#[tokio::test]
async fn e16_a_launch_that_fails_leaves_neither_zombie_nor_range() {
    let home = Home::new();
    let mut broken = image(home.dir.path());
    broken.trees[1].layers.push(PathBuf::from("/nonexistent/layer"));
    home.driver.add_image("broken", broken);
    for _ in 0..5 {
        let asked = SandboxSpec { image: "broken".into(), ..spec("e16") };
        let error = home.driver.create(&InstanceId::random(), &asked).await.unwrap_err();
        assert!(matches!(error, DriverError::Launch { .. }), "{}", chain(&error));
    }
    no_zombies().await;
    // And one that was there before, whose files no longer start.
    let id = home.create("e16").await;
    killed(&home, &id).await;
    on_host(&format!(
        "dd if=/dev/zero of={} bs=1M count=1 conv=notrunc 2>&1",
        dir(&home, &id).join("disk.img").display()
    ));
    for _ in 0..3 {
        home.driver.start(&id).await.unwrap_err();
    }
    no_zombies().await;
    home.destroy(&id).await;
    for name in ["instances", "ids", "sockets"] {
        let left = std::fs::read_dir(home.dir.path().join("data").join(name)).unwrap().count();
        assert_eq!(left, 0, "{name}");
    }
}
