//! A host whose disk is full (attacks E09, E13): on a file system of 400 MB of the test's own.

use crate::rig::{Server, block_on, client, tool};
use sandcrab_client::api::ErrorCode;
use sandcrab_client::api::sandbox::SandboxStatus;
use sandcrab_client::{Client, Sandbox, SandboxOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A file system of its own, unmounted at the end.
pub(crate) struct Disk(tempfile::TempDir);

impl Disk {
    pub(crate) fn new(megabytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let this = Self(dir);
        std::fs::create_dir(this.at()).unwrap();
        run(tool("mkfs.ext4").arg("-q").arg(&image));
        run(tool("mount").args(["-o", "loop"]).arg(&image).arg(this.at()));
        this
    }

    pub(crate) fn at(&self) -> std::path::PathBuf {
        self.0.path().join("disk")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let output = tool("umount").arg(self.at()).output().unwrap();
        // A test that has failed already leaves sandboxes on it.
        assert!(output.status.success() || std::thread::panicking(), "{output:?}");
    }
}

#[track_caller]
fn run(command: &mut std::process::Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn serve(data: &Path) -> Arc<Server> {
    Server::start_with("127.0.0.1:0", &[("SANDCRAB_DATA_DIR", data.to_str().unwrap())])
}

fn of(client: &Client, name: &str) -> Sandbox {
    client.sandbox(name, SandboxOptions::default()).unwrap()
}

/// Takes the disk but for so many megabytes that root can still have.
fn leave(disk: &Disk, megabytes: u64) {
    let stat = rustix::fs::statvfs(disk.at()).unwrap();
    let take = (stat.f_bfree * stat.f_frsize).saturating_sub(megabytes << 20);
    let file = disk.at().join("most");
    run(tool("fallocate").arg("-l").arg(take.to_string()).arg(&file));
}

/// Takes the disk to its last block.
fn fill(disk: &Disk) -> PathBuf {
    let filler = disk.at().join("filler");
    let filled = tool("dd").args(["if=/dev/zero", "bs=64k"]).arg(format!("of={}", filler.display())).output();
    assert!(String::from_utf8_lossy(&filled.unwrap().stderr).contains("No space left"));
    filler
}

/// Waits until a sandbox is held, or is no longer.
async fn until_held(sandbox: &Sandbox, held: bool) {
    let wait = async {
        while sandbox.info().await.unwrap().problem.is_some() != held {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("held: not {held}"));
}

fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

/// Instances, beside which the id of the database lies.
fn instances(data: &Path) -> usize {
    count(&data.join("instances")) - 1
}

async fn kinds(sandbox: &Sandbox) -> Vec<String> {
    sandbox.events().await.unwrap().into_iter().map(|event| event.kind).collect()
}

#[test]
fn e09_e13_an_operator_whose_disk_is_full_has_what_frees_it_and_nothing_is_lost() {
    let disk = Disk::new(400);
    let data = disk.at().join("data");
    let server = serve(&data);
    block_on(async {
        let client = client(&server.url);
        let (old, other, third) = (of(&client, "old"), of(&client, "other"), of(&client, "third"));
        for sandbox in [&old, &other, &third] {
            assert!(sandbox.exec("kept=1").await.unwrap().success());
        }
        // Acknowledged, and not on the disk yet.
        let made = "head -c 24M /dev/urandom > /workspace/file; sha256sum < /workspace/file";
        let sum = old.exec(made).await.unwrap().stdout_text().to_string();
        // Below the floor all are held while there is room for what they were promised. A program of the host's that took
        // the last block before that is written would be beyond what the server can promise.
        leave(&disk, 28);
        for sandbox in [&old, &other, &third] {
            until_held(sandbox, true).await;
            let error = sandbox.exec("echo 1").await.unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::NoSpace), "{error:?}");
        }
        run(&mut tool("sync"));
        let filler = fill(&disk);
        for n in 0..15 {
            let error = of(&client, &format!("new{n}")).exec("true").await.unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::NoSpace), "{error:?}");
        }
        assert_eq!((instances(&data), count(&data.join("ids"))), (3, 3), "what failed left nothing");
        // What frees room works, and takes effect.
        other.destroy().await.unwrap();
        assert_eq!((instances(&data), count(&data.join("ids"))), (2, 2));
        assert_eq!(kinds(&other).await.last().unwrap(), "destroyed");
        // What it freed is taken, too. A server that starts now serves, and destroys.
        let filler = (filler, fill_more(&disk));
        server.kill();
        let server = serve(&data);
        let client = crate::rig::client(&server.url);
        let (old, third) = (of(&client, "old"), of(&client, "third"));
        assert_eq!(client.sandboxes(&[]).await.unwrap().len(), 2);
        until_held(&old, true).await;
        assert_eq!(old.exec("echo 1").await.unwrap_err().code(), Some(ErrorCode::NoSpace));
        third.destroy().await.unwrap();
        assert_eq!((instances(&data), count(&data.join("ids"))), (1, 1));
        assert_eq!(of(&client, "new").exec("true").await.unwrap_err().code(), Some(ErrorCode::NoSpace));

        for file in [&filler.0, &filler.1, &disk.at().join("most")] {
            std::fs::remove_file(file).unwrap();
        }
        until_held(&old, false).await;
        assert_eq!(old.exec("echo $kept").await.unwrap().stdout_text(), "1\n");
        drop_caches();
        assert_eq!(old.exec("sha256sum < /workspace/file").await.unwrap().stdout_text(), sum);
        let told = kinds(&old).await;
        assert!(told.contains(&"held".to_owned()) && told.last().unwrap() == "recovered", "{told:?}");
        assert!(of(&client, "late").exec("head -c 2M /dev/urandom > x; sync x").await.unwrap().success());
        for sandbox in [&old, &of(&client, "late")] {
            sandbox.destroy().await.unwrap();
        }
        assert_eq!((instances(&data), count(&data.join("ids"))), (0, 0));
        drop(server);
    });
}

fn fill_more(disk: &Disk) -> PathBuf {
    let more = disk.at().join("more");
    std::fs::rename(disk.at().join("filler"), &more).unwrap();
    let filler = fill(disk);
    std::fs::rename(&more, disk.at().join("first")).unwrap();
    std::fs::rename(filler, &more).unwrap();
    std::fs::rename(disk.at().join("first"), disk.at().join("filler")).unwrap();
    more
}

/// Has everything read from the disks again.
fn drop_caches() {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

/// A sandbox whose own disk is larger than what the host has left writes as fast as it can.
#[test]
fn e13_a_sandbox_that_fills_the_hosts_disk_is_held_before_anything_is_lost() {
    let disk = Disk::new(400);
    let data = disk.at().join("data");
    let server = serve(&data);
    block_on(async {
        let client = client(&server.url);
        let (writer, idle) = (of(&client, "writer"), of(&client, "idle"));
        for sandbox in [&writer, &idle] {
            assert!(sandbox.exec("kept=1").await.unwrap().success());
        }
        let filler = disk.at().join("filler");
        run(tool("fallocate").args(["-l", "150M"]).arg(&filler));
        let write = "yes sandcrab | head -c 180M > /workspace/file; sha256sum < /workspace/file";
        let writing = tokio::spawn({
            let writer = of(&client, "writer");
            async move { writer.exec(write).await }
        });
        until_held(&writer, true).await;
        assert_eq!(writer.info().await.unwrap().status, SandboxStatus::Running);
        rustix::fs::sync();
        std::fs::remove_file(&filler).unwrap();
        let sum = writing.await.unwrap().unwrap().stdout_text().to_string();
        drop_caches();
        let again = writer.exec("wc -c < /workspace/file; sha256sum < /workspace/file").await.unwrap();
        assert_eq!(again.stdout_text(), format!("{}\n{sum}", 180 << 20));
        let told = kinds(&writer).await;
        assert!(told.contains(&"held".to_owned()) && !told.contains(&"diskFailed".to_owned()), "{told:?}");
        assert_eq!(idle.exec("echo $kept").await.unwrap().stdout_text(), "1\n");
        for sandbox in [&writer, &idle] {
            sandbox.destroy().await.unwrap();
        }
    });
    drop(server);
}
