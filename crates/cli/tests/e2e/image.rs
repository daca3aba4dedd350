//! The image `python`, built from real wheels. What is downloaded is kept below `target`, between runs and for all tests.

use crate::rig::{Done, Rig, Running, Server, command, data_dir, program, sandbox};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An image may have to be fetched and installed, on a machine that is busy with other tests.
const BUILD: Duration = Duration::from_secs(600);

/// One test removes the image that others use.
static IMAGE: Mutex<()> = Mutex::new(());

fn built(command: &mut Command) -> Done {
    Running::start(command).patiently(BUILD).done()
}

fn layers(data_dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(data_dir.join("images/layers")) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // What is being removed has a name of its own.
    names.filter(|name| name != "lock" && !name.starts_with(".old-")).collect()
}

/// When the layer was made, and which directory it is.
fn made_at() -> (std::time::SystemTime, u64) {
    use std::os::unix::fs::MetadataExt as _;
    let [layer] = &layers(&data_dir())[..] else { panic!("not one layer: {:?}", layers(&data_dir())) };
    let record = std::fs::metadata(data_dir().join("images/layers").join(layer).join("layer.json")).unwrap();
    (record.modified().unwrap(), record.ino())
}

fn status(rig: &Rig) -> serde_json::Value {
    let images = rig.cli(&["image", "ls", "--json"]).json();
    let python = images.as_array().unwrap().iter().find(|image| image["name"] == "python");
    python.unwrap().clone()
}

#[test]
fn l01_the_first_use_of_the_python_image_builds_it_once_for_all() {
    let _image = IMAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let rig = Rig::new();
    rig.cli(&["image", "rm", "python"]).ok();
    assert_eq!(status(&rig)["status"], "unbuilt");
    let script = "import IPython, matplotlib.pyplot, numpy, pandas, sys; print(pandas.DataFrame({'a': [1, 2]}).a.sum())";
    let run = || rig.command(&["run", "--image", "python", "--", "python", "-c", script]);
    let first = Running::start(&mut run()).patiently(BUILD);
    let second = Running::start(&mut run()).patiently(BUILD);
    let asked = Running::start(&mut rig.command(&["image", "build", "python", "--json"])).patiently(BUILD);
    assert_eq!((first.done().ok(), second.done().ok()), ("3\n", "3\n"));
    assert_eq!(asked.done().json()["status"], "ready");
    let (names, made) = (layers(&data_dir()), made_at());
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(built(&mut run()).ok(), "3\n");
    assert_eq!(made_at(), made, "it was not built again");
    let image = status(&rig);
    assert_eq!((image["status"].as_str(), image["key"].as_str()), (Some("ready"), Some(names[0].as_str())));
    assert!(image["size"].as_u64().unwrap() > 100 << 20, "{image}");
    assert!(rig.cli(&["image", "ls"]).ok().contains(&names[0]));

    let kept = kept(&rig);
    let busy = rig.cli(&["image", "rm", "python"]);
    busy.failed("RESOURCE_BUSY");
    // The machine's own packages may lack something; with those of the image nothing more does.
    let broken = |done: Done| -> BTreeSet<String> { done.text().lines().map(str::to_owned).collect() };
    let sound = BTreeSet::from(["No broken requirements found.".to_owned()]);
    let before = broken(rig.cli(&["run", "--", "python", "-m", "pip", "check"]));
    let with_ours = broken(rig.cli(&["exec", &kept, "python -m pip check"]));
    assert!(!with_ours.is_empty() && with_ours.is_subset(&(&before | &sound)), "{with_ours:?}, {before:?}");
    rig.cli(&["rm", &kept]).ok();
}

/// A sandbox of the image that lives until it is removed.
fn kept(rig: &Rig) -> String {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let id = format!("python-{}-{number}", std::process::id());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = sandcrab_client::SandboxOptions { image: Some("python".into()), ..Default::default() };
        let sandbox = rig.client().sandbox(&id, options).unwrap();
        assert_eq!(tokio::time::timeout(BUILD, sandbox.create()).await.unwrap().unwrap().image, "python");
    });
    id
}

/// A hash of a tree's names, modes, times and contents.
fn fingerprint(dir: &Path) -> String {
    let script = "cd \"$1\" && { find . -printf '%p %m %T@ %l\\n' | sort; find . -type f -print0 | sort -z | xargs -0 cat; } | sha256sum";
    #[expect(clippy::disallowed_methods, reason = "tools of the host look at what a sandbox must not change")]
    let output = Command::new("bash").args(["-c", script, "-"]).arg(dir).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a22_what_a_sandbox_does_to_the_shared_layer_reaches_no_other() {
    let _image = IMAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let rig = Rig::new();
    let (evil, good) = (kept(&rig), kept(&rig));
    let layer = data_dir().join("images/layers").join(&layers(&data_dir())[0]);
    let before = fingerprint(&layer);
    let site = "cd \"$(dirname \"$(python -c 'import numpy; print(numpy.__path__[0])')\")\"";
    let change = format!(
        "{site} && echo 'raise SystemExit(\"evil\")' > numpy/__init__.py && rm -rf pandas && chmod 777 matplotlib && \
         mv IPython IPython2 && ln -sfn /etc/passwd traitlets && python -c 'import numpy'"
    );
    let changed = rig.cli(&["exec", &evil, &change]);
    assert!(changed.stderr.contains("evil"), "it reaches the sandbox that does it: {changed:?}");
    // Through a shared mapping, and by a write into the file in place.
    let mapped = format!(
        "{site} && python - <<'E'\nimport mmap\nf = open('pyparsing/core.py', 'r+b')\nm = mmap.mmap(f.fileno(), 0)\n\
         m[:4] = b'evil'\nm.flush()\nE\nhead -c 4 pyparsing/core.py"
    );
    // Through the page cache, as Dirty COW and Dirty Pipe did: on this kernel nothing comes of it.
    let sneak = format!(
        "{site} && python - <<'E'\nimport mmap, os\nf = os.open('cycler/__init__.py', os.O_RDONLY)\n\
         private = mmap.mmap(f, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)\n\
         private[:4] = b'evil'\nout, into = os.pipe()\nfor _ in range(16):\n    os.write(into, bytes(4096))\n    os.read(out, 4096)\n\
         print(os.splice(f, into, 1, offset_src=3))\nos.write(into, b'evil')\nE\nhead -c 8 cycler/__init__.py | grep -c evil"
    );
    assert_eq!(rig.cli(&["exec", &evil, &sneak]).text(), "1\n0\n");
    assert_eq!(rig.cli(&["exec", &evil, &mapped]).ok(), "evil");
    let use_it = "python -c 'import IPython, numpy, pandas, pyparsing; print(numpy.ones(2).sum())'";
    assert_eq!(rig.cli(&["exec", &good, use_it]).ok(), "2.0\n");
    assert_eq!(fingerprint(&layer), before);
    let fresh = built(&mut rig.command(&["run", "--image", "python", "--", "sh", "-c", use_it]));
    assert_eq!(fresh.ok(), "2.0\n");
    rig.cli(&["rm", &evil, &good]).ok();
}

#[test]
fn c10_c11_nothing_of_the_build_is_in_a_sandbox() {
    let _image = IMAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let rig = Rig::new();
    let (one, other) = (kept(&rig), kept(&rig));
    let look = "ls -d /build /tmp/* /var/tmp/* /workspace/* /root/.cache/pip /root/.sandcrab 2>/dev/null; \
                ls -A /root/.cache /dev/shm; env | grep -i -E 'pip_(cert|index)|proxy'; hostname | cut -c1-7";
    assert_eq!(rig.cli(&["exec", &one, look]).ok(), "/dev/shm:\n\n/root/.cache:\nmatplotlib\npython-\n");
    let id = |sandbox: &str| rig.cli(&["exec", sandbox, "cat /etc/machine-id"]).ok().to_owned();
    assert_ne!(id(&one), id(&other));
    let network = "grep -c nameserver /etc/resolv.conf; tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '";
    assert_eq!(
        rig.cli(&["exec", &one, network]).text(),
        "0\nlo\n",
        "the build's network is not the sandbox's"
    );
    rig.cli(&["rm", &one, &other]).ok();
}

#[test]
fn x02_an_unknown_image_is_named_with_those_that_there_are() {
    let rig = Rig::new();
    let done = rig.cli(&["--json", "run", "--image", "pyton", "--", "true"]);
    assert_eq!(done.code(), 125);
    let error: serde_json::Value = serde_json::from_str(done.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(
        (error["code"].as_str(), error["httpStatus"].as_u64()),
        (Some("VALIDATION_FAILED"), Some(400))
    );
    assert_eq!(error["context"]["validationErrors"][0]["field"], "image");
    assert_eq!(error["context"]["images"], serde_json::json!(["host", "python"]));
    for arguments in [&["image", "build", "../x"][..], &["image", "rm", "pyton"]] {
        rig.cli(arguments).failed("name: there is no image");
    }
    assert_eq!(rig.cli(&["image", "rm", "host"]).ok(), "host: nothing to remove\n");
    assert!(rig.cli(&["image", "build", "host"]).ok().contains("ready"));
}

/// The instances that a server has.
fn instances(data_dir: &Path) -> usize {
    // Beside them lies the file that names the database.
    let found = std::fs::read_dir(data_dir.join("instances"));
    found.map_or(0, |found| found.flatten().filter(|entry| entry.path().is_dir()).count())
}

/// A data directory of a test's own, without wheels.
fn own_dir() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn x04_an_index_out_of_reach_is_an_error_that_names_step_and_remedy_and_leaves_nothing() {
    let (dir, path) = own_dir();
    // Nobody listens there. The variables are those that a person would set.
    let done = built(
        program()
            .args(["--json", "run", "--image", "python", "--", "true"])
            .env("SANDCRAB_DATA_DIR", &path)
            .env("PIP_INDEX_URL", "http://me:hunter2@127.0.0.1:1/simple")
            .env("PIP_RETRIES", "0")
            .env_remove("PIP_FIND_LINKS"),
    );
    assert_eq!(done.code(), 125, "{done:?}");
    let error: serde_json::Value = serde_json::from_str(done.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(
        (error["code"].as_str(), error["httpStatus"].as_u64()),
        (Some("CONTAINER_UNAVAILABLE"), Some(503))
    );
    assert_eq!(
        (error["context"]["step"].as_str(), error["context"]["image"].as_str()),
        (Some("fetch"), Some("python"))
    );
    assert!(error["context"]["retryAfter"].as_u64().is_some_and(|seconds| seconds > 0), "{error}");
    let suggestion = error["suggestion"].as_str().unwrap();
    assert!(suggestion.contains("PIP_INDEX_URL") && suggestion.contains("images/wheels"), "{error}");
    assert!(!done.stderr.contains("hunter2"), "{done:?}");
    assert_eq!(instances(dir.path()), 0);
    assert!(layers(dir.path()).is_empty());
}

#[test]
fn e09_a_build_that_was_killed_leaves_nothing_and_begins_anew_without_an_index() {
    let _image = IMAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let rig = Rig::new();
    let images = data_dir().join("images");
    assert!(built(&mut rig.command(&["image", "build", "python"])).ok().contains("ready"));

    // The wheels as somebody puts them there where there is no index.
    let (dir, path) = own_dir();
    let wheels = dir.path().join("images/wheels");
    std::fs::create_dir_all(&wheels).unwrap();
    for wheel in std::fs::read_dir(images.join("wheels")).unwrap().map(|entry| entry.unwrap().path()) {
        if wheel.extension().is_some_and(|extension| extension == "whl") {
            std::fs::copy(&wheel, wheels.join(wheel.file_name().unwrap())).unwrap();
        }
    }
    let env = [("SANDCRAB_DATA_DIR", path.as_str()), ("PIP_INDEX_URL", "http://127.0.0.1:1/simple")];
    let server = Server::start_with("127.0.0.1:0", &env);
    let build = Running::start(&mut command(&server.url, &["image", "build", "python"]));
    let until = Instant::now() + BUILD;
    // It is killed in the midst of installing: wheels are in the sandbox's own disk by then.
    while !installing(dir.path()) {
        assert!(Instant::now() < until, "the build did not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let images = Running::start(&mut command(&server.url, &["image", "ls"])).done();
    assert!(images.ok().contains("building"), "{images:?}");
    server.kill();
    assert_eq!(build.done().code(), 125);
    drop(server);
    assert_ne!(instances(dir.path()), 0, "it was killed while its sandbox lived");
    std::fs::write(wheels.join(".new-left"), "half of a wheel").unwrap();
    std::fs::create_dir_all(dir.path().join("images/layers/.new-left/usr")).unwrap();

    let server = Server::start_with("127.0.0.1:0", &env);
    // Behind its first answers.
    while instances(dir.path()) > 0 || !layers(dir.path()).is_empty() {
        assert!(Instant::now() < until, "the next server removes what was left");
        std::thread::sleep(Duration::from_millis(20));
    }
    let run = ["run", "--image", "python", "--", "python", "-c", "import numpy; print(numpy.ones(3).sum())"];
    assert_eq!(built(&mut command(&server.url, &run)).ok(), "3.0\n");
    assert_eq!(layers(dir.path()).len(), 1);
    let left = std::fs::read_dir(&wheels).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with('.')));
    drop(server);
    serves_until_the_next_is_built(dir.path(), &env, &run);
    // And a server that ends as asked takes its build's sandbox with it.
    std::fs::remove_dir_all(dir.path().join("images/layers")).unwrap();
    ended_in_the_midst(dir.path(), &env);
}

/// What an earlier release built, by other pins, serves a new one at once, which builds its own beside it.
fn serves_until_the_next_is_built(dir: &Path, env: &[(&str, &str)], run: &[&str]) {
    let [wanted] = &layers(dir)[..] else { panic!("{:?}", layers(dir)) };
    let former = format!("python-{}", "0".repeat(32));
    let at = |name: &str| dir.join("images/layers").join(name);
    let record = std::fs::read_to_string(at(wanted).join("layer.json")).unwrap();
    std::fs::write(at(wanted).join("layer.json"), record.replace(wanted.as_str(), &former)).unwrap();
    std::fs::rename(at(wanted), at(&former)).unwrap();
    let server = Server::start_with("127.0.0.1:0", env);
    let ls = || Running::start(&mut command(&server.url, &["image", "ls", "--json"])).done().json();
    let python = || ls().as_array().unwrap().iter().find(|image| image["name"] == "python").unwrap().clone();
    let first = python();
    assert_eq!((first["status"].as_str(), first["key"].as_str()), (Some("outdated"), Some(former.as_str())));
    assert_eq!(Running::start(&mut command(&server.url, run)).patiently(BUILD).done().ok(), "3.0\n");
    assert_eq!(python()["status"], "outdated", "nobody waited for the new one");
    let until = Instant::now() + BUILD;
    while python()["status"] != "ready" {
        assert!(Instant::now() < until, "it is built beside");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(python()["key"].as_str(), Some(wanted.as_str()));
}

fn ended_in_the_midst(dir: &Path, env: &[(&str, &str)]) {
    let mut serve = program();
    serve.args(["serve", "--json", "--log", "warn", "--listen", "127.0.0.1:0", "--no-auth"]);
    let mut serving = Running::start(serve.envs(env.iter().copied()));
    serving.wait_for("\"url\":\"");
    let url = serving.text_until("\"");
    let build = Running::start(&mut command(&url, &["image", "build", "python"]));
    let until = Instant::now() + BUILD;
    while !installing(dir) {
        assert!(Instant::now() < until, "the build did not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    serving.signal(rustix::process::Signal::TERM);
    serving.done();
    assert_eq!(build.done().code(), 125);
    assert_eq!(instances(dir), 0);
}

/// Whether pip installs in a sandbox of this data directory: its command line is seen from the host.
fn installing(data_dir: &Path) -> bool {
    let Ok(instances) = std::fs::read_dir(data_dir.join("instances")) else { return false };
    let firsts: Vec<String> = instances
        .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path().join("pid")).ok())
        .filter_map(|pid| Some(pid.split(' ').next()?.to_owned()))
        .collect();
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let theirs: Vec<PathBuf> = firsts.iter().filter_map(|pid| namespace(pid)).collect();
    std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok()).any(
        |pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("pip\0install")
                && namespace(&pid).is_some_and(|namespace| theirs.contains(&namespace))
        },
    )
}

#[test]
fn a_throw_away_sandbox_beside_a_server_shares_its_images() {
    let _image = IMAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let rig = Rig::new();
    assert!(built(&mut rig.command(&["image", "build", "python"])).ok().contains("ready"));
    let layer = made_at();
    // No server is named, and none listens where one would be looked for: it serves itself, beside the other.
    let done = built(program().args([
        "run",
        "--image",
        "python",
        "--",
        "python",
        "-c",
        "import numpy; print(numpy.ones(4).sum())",
    ]));
    assert_eq!(done.ok(), "4.0\n");
    assert_eq!(made_at(), layer, "it was not built again");
    let once = std::fs::read_dir(data_dir().join("once")).map_or(0, Iterator::count);
    assert_eq!(once, 0, "what it was served from is gone");
    drop(sandbox(&rig.server));
}
