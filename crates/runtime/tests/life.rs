//! A native sandbox from creation to its end.
#![expect(clippy::tests_outside_test_module, reason = "a test program is all tests")]
mod common;

use common::{Home, ROOT, USER};
use sandcrab_runtime::{Driver, Exit};

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
