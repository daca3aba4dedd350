//! What lives leave behind: for the next of their name (C09, C11), on the host (B06), of a server that ends badly or has
//! no room (E09, which full_disk.rs has).

use crate::rig::{Rig, Server, alone, block_on, client, data_dir, tool};
use sandcrab_client::SandboxOptions;
use sandcrab_client::api::ErrorCode;
use sandcrab_client::api::sandbox::SandboxStatus;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

#[test]
fn c09_the_next_of_an_id_finds_nothing_of_the_one_before() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    let mark = format!("left-over-{}", std::process::id());
    let places = "/workspace /tmp /var/tmp /root /dev/shm /run /etc /home /srv /opt";
    let leave =
        format!("for d in {places}; do echo {mark} > $d/.{mark}; done; export LEFT={mark}; left() {{ :; }}");
    rig.cli(&["exec", id, &leave]).ok();
    rig.cli(&["exec", "-s", "named", id, &format!("state={mark}")]).ok();
    rig.cli(&["start", "--id", "left", id, &format!("exec -a {mark} sleep 1000")]).ok();
    rig.cli(&["expose", id, "8000"]).ok();
    rig.cli_with(&["run-code", id], format!("left = {mark:?}").as_bytes()).ok();
    let look = format!(
        "grep -rlsI {mark} {places}; env | grep {mark}; grep -ls {mark} /proc/[0-9]*/cmdline /proc/[0-9]*/environ;
        declare -F; ls /proc/sysvipc >/dev/null; ipcs -q -m -s | grep 0x"
    );
    // The search finds what is there.
    let before = rig.cli(&["exec", id, &look]);
    assert!(before.text().lines().count() > 10 && before.text().contains("left"), "{before:?}");

    rig.cli(&["rm", id]).ok();
    assert_eq!(rig.cli(&["exec", id, &look]).text(), "");
    assert_eq!(rig.cli(&["exec", "-s", "named", id, "echo $state"]).ok(), "\n");
    rig.cli(&["logs", id, "left"]).failed("PROCESS_NOT_FOUND");
    assert_eq!(rig.cli(&["ports", "--json", id]).json(), serde_json::json!([]));
    let code = rig.cli_with(&["run-code", id], b"left");
    assert!(code.code() == 1 && code.stderr.contains("NameError"), "{code:?}");
    let ps = rig.cli(&["ps", "--json", id]).json();
    assert_eq!(ps["processes"], serde_json::json!([]), "{ps}");
}

#[test]
fn c11_no_two_sandboxes_and_no_two_interpreters_share_randomness_or_identity() {
    let rig = Rig::new();
    let sandboxes = [rig.sandbox(), rig.sandbox()];
    let mut seen = BTreeSet::new();
    let mut new = |what: &str, value: String| {
        assert!(value.trim().len() > 8, "{what}: {value:?}");
        assert!(seen.insert(value.clone()), "{what} again: {value}");
    };
    block_on(async {
        for sandbox in &sandboxes {
            let sandbox = client(&rig.server.url).sandbox(&sandbox.id, SandboxOptions::default()).unwrap();
            for (what, command) in [
                ("machine id", "cat /etc/machine-id"),
                ("python", "python3 -c 'import random, uuid; print(random.random(), uuid.uuid4())'"),
                ("uuid", "cat /proc/sys/kernel/random/uuid"),
            ] {
                new(what, sandbox.exec(command).await.unwrap().stdout_text().into_owned());
            }
            // From spares, which were started before anyone asked for them.
            for (language, code) in
                [("python", "import random; random.random()"), ("javascript", "Math.random()")]
            {
                for _ in 0..3 {
                    let options = serde_json::json!({ "language": language });
                    let context =
                        sandbox.create_code_context(&serde_json::from_value(options).unwrap()).await.unwrap();
                    let ran = sandbox.run_code(code).context(context.id.clone()).await.unwrap();
                    new(language, ran.results[0].text.clone().unwrap());
                    sandbox.delete_code_context(&context.id).await.unwrap();
                }
            }
        }
    });
}

#[test]
fn b06_no_hard_link_leads_to_a_file_of_the_host() {
    let rig = Rig::new();
    let (one, other) = (rig.sandbox(), rig.sandbox());
    // A file of the host's that sandboxes see, and that nobody runs meanwhile.
    let file = "/usr/share/doc/dash/copyright";
    let on_host = || {
        (
            std::fs::read(file).unwrap(),
            std::os::linux::fs::MetadataExt::st_nlink(&std::fs::metadata(file).unwrap()),
        )
    };
    let before = on_host();
    let link =
        format!("ln {file} /workspace/l; ln {file} /usr/share/l; ln -L /proc/self/exe /workspace/e; true");
    rig.cli(&["exec", &one.id, &link]).ok();
    for target in ["/workspace/l", "/usr/share/l", file, "/workspace/e"] {
        let place = one.at(target);
        // Whether there is one or not: what is written is the sandbox's own.
        rig.cli_with(&["cp", "-", &place], b"evil").ok();
        assert_eq!(rig.cli(&["cp", &place, "-"]).ok(), "evil");
        rig.cli(&["exec", &one.id, &format!("echo more >> {target}; chmod 777 {target}")]).ok();
        assert!(on_host() == before, "{target} leads to the host's file");
    }
    let seen = rig.cli(&["exec", &other.id, &format!("cat {file}; test ! -e /usr/share/l")]);
    assert!(seen.ok().as_bytes() == before.0, "a sibling sees it");
    // Links between a sandbox's own files are links.
    let own = "cd /tmp; echo 1 > a; ln a b; echo 2 > b; cat a; stat -c %h a";
    assert_eq!(rig.cli(&["exec", &one.id, own]).ok(), "2\n2\n");
}

/// What of the host's a data directory holds on to.
fn held(data: &Path, instances: &BTreeSet<String>) -> Vec<String> {
    let data = data.to_str().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mut held: Vec<_> = mounts
        .lines()
        .filter(|line| line.contains(&format!("{data}/instances")))
        .map(str::to_owned)
        .collect();
    for device in std::fs::read_dir("/sys/block").unwrap().flatten() {
        let file = std::fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        if file.starts_with(data) {
            held.push(format!("{}: {file}", device.path().display()));
        }
    }
    let groups = String::from_utf8(
        tool("find").args(["/sys/fs/cgroup", "-type", "d", "-path", "*/sandcrab/*"]).output().unwrap().stdout,
    );
    let groups = groups.unwrap();
    held.extend(
        groups.lines().filter(|line| instances.iter().any(|name| line.contains(name))).map(str::to_owned),
    );
    held.extend(self::instances(Path::new(data)).iter().map(|name| format!("{data}/instances/{name}")));
    held
}

/// Beside them lies the file that names the database.
fn instances(data: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(data.join("instances")).unwrap().flatten();
    entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Destroys all that there is. What a server that ended had begun to destroy is listed until the next one has finished
/// it, and may be gone when its turn comes.
async fn destroy_all(client: &sandcrab_client::Client) {
    for info in client.sandboxes(&[]).await.unwrap() {
        let sandbox = client.sandbox(info.id.as_str(), SandboxOptions::default()).unwrap();
        match sandbox.destroy().await {
            Ok(_gone) => {}
            Err(sandcrab_client::ClientError::Api(error))
                if info.status == SandboxStatus::Destroying && error.code == ErrorCode::SandboxNotFound => {}
            Err(error) => panic!("{}: {error}", info.id),
        }
    }
}

#[test]
fn e09_many_lives_and_a_server_killed_in_the_middle_leave_nothing() {
    const WORKERS: usize = 4;
    let _alone = alone();
    let server = Server::start("127.0.0.1:0");
    let known = Mutex::new(BTreeSet::new());
    let live = async |client: &sandcrab_client::Client, name: String| {
        let sandbox = client.sandbox(&name, SandboxOptions::default())?;
        sandbox.exec("(setsid sleep 1000 &); : > x").await?;
        known.lock().unwrap().extend(instances(&data_dir()));
        sandbox.destroy().await?;
        Ok::<_, sandcrab_client::ClientError>(())
    };
    let descriptors = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    block_on(async {
        let client = client(&server.url);
        // What other tests left is theirs.
        destroy_all(&client).await;
        live(&client, "e09-first".into()).await.unwrap();
        let before = descriptors(server.pid());
        let lives = (0..WORKERS).map(async |worker| {
            for n in 0..40 {
                live(&client, format!("e09-{worker}-{n}")).await.unwrap();
            }
        });
        futures_util::future::join_all(lives).await;
        assert_eq!(held(&data_dir(), &known.lock().unwrap()), Vec::<String>::new());
        let after = descriptors(server.pid());
        assert!(after <= before + 2 * WORKERS, "{before} descriptors became {after}");
    });

    let url = server.url.clone();
    for round in 0..3 {
        let begun = Mutex::new(0);
        let server = if round == 0 {
            std::sync::Arc::clone(&server)
        } else {
            Server::start(url.strip_prefix("http://").unwrap())
        };
        block_on(async {
            let mut options = sandcrab_client::ClientOptions::new(&url).api_key(crate::rig::KEY);
            options.reconnect_for = std::time::Duration::ZERO;
            let client = sandcrab_client::Client::new(options).unwrap();
            let lives = (0..WORKERS).map(async |worker| {
                for n in 0.. {
                    *begun.lock().unwrap() += 1;
                    // Wherever each of them stands then.
                    if *begun.lock().unwrap() == 15 + round {
                        server.kill();
                    }
                    if live(&client, format!("e09-{round}-{worker}-{n}")).await.is_err() {
                        return;
                    }
                }
            });
            futures_util::future::join_all(lives).await;
        });
    }
    let again = Server::start(url.strip_prefix("http://").unwrap());
    known.lock().unwrap().extend(instances(&data_dir()));
    block_on(async {
        let client = client(&again.url);
        destroy_all(&client).await;
    });
    assert_eq!(held(&data_dir(), &known.lock().unwrap()), Vec::<String>::new());
}
