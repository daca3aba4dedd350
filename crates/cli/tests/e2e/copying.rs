//! `sandcrab cp`

use crate::rig::Rig;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_tree_goes_in_and_comes_out_as_it_was() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let local = tempfile::tempdir().unwrap();
    let tree = local.path().join("tree");
    fs::create_dir_all(tree.join("sub/empty")).unwrap();
    let binary: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    fs::write(tree.join("sub/binary"), &binary).unwrap();
    fs::write(tree.join("it's $HOME *"), "odd name").unwrap();
    fs::write(tree.join(".hidden"), "").unwrap();
    fs::write(tree.join("run.sh"), "#!/bin/sh\necho ran\n").unwrap();
    set_mode(&tree.join("run.sh"), 0o755);
    set_mode(&tree.join("sub/binary"), 0o600);
    set_mode(&tree.join("sub"), 0o750);
    symlink("sub/binary", tree.join("link")).unwrap();
    symlink("/nowhere", tree.join("dangling")).unwrap();

    rig.cli(&["cp", tree.to_str().unwrap(), &sandbox.at("/tmp/copy")]).ok();
    let seen = rig.cli(&[
        "exec",
        &sandbox.id,
        "cd /tmp/copy && ./run.sh && stat -c %a sub/binary sub && readlink link && ls -A",
    ]);
    assert_eq!(seen.ok(), "ran\n600\n750\nsub/binary\n.hidden\ndangling\nit's $HOME *\nlink\nrun.sh\nsub\n");

    let back = local.path().join("back");
    let copied = rig.cli(&["cp", "--json", &sandbox.at("/tmp/copy"), back.to_str().unwrap()]).json();
    assert_eq!((&copied["files"], &copied["links"]), (&4.into(), &2.into()), "{copied}");
    assert!(fs::read(back.join("sub/binary")).unwrap() == binary);
    assert_eq!(fs::read_to_string(back.join("it's $HOME *")).unwrap(), "odd name");
    assert!(back.join("sub/empty").is_dir() && back.join(".hidden").is_file());
    assert_eq!((mode(&back.join("run.sh")), mode(&back.join("sub/binary"))), (0o755, 0o600));
    assert_eq!(mode(&back.join("sub")), 0o750);
    assert_eq!(fs::read_link(back.join("link")).unwrap(), Path::new("sub/binary"));
    assert_eq!(fs::read_link(back.join("dangling")).unwrap(), Path::new("/nowhere"));

    // Into a directory that exists, under its own name; again over what is there.
    let into = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        rig.cli(&["cp", &sandbox.at("/tmp/copy"), into.path().to_str().unwrap()]).ok();
    }
    assert!(into.path().join("copy/run.sh").is_file());
    rig.cli(&["cp", tree.to_str().unwrap(), &sandbox.at("/tmp")]).ok();
    rig.cli(&["exec", &sandbox.id, "test -x /tmp/tree/run.sh"]).ok();
}

#[test]
fn files_and_pipes_go_both_ways() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let local = tempfile::tempdir().unwrap();
    let file = local.path().join("file");
    fs::write(&file, b"\0\xff binary").unwrap();
    set_mode(&file, 0o640);
    rig.cli(&["cp", file.to_str().unwrap(), &sandbox.at("made/on/the/way")]).ok();
    assert_eq!(rig.cli(&["exec", &sandbox.id, "stat -c %a /workspace/made/on/the/way"]).ok(), "640\n");
    rig.cli(&["cp", &sandbox.at("made/on/the/way"), local.path().join("again").to_str().unwrap()]).ok();
    assert_eq!(fs::read(local.path().join("again")).unwrap(), b"\0\xff binary");
    assert_eq!(mode(&local.path().join("again")), 0o640);
    // A directory on either side takes the file under its own name.
    rig.cli(&["cp", file.to_str().unwrap(), &sandbox.at("/tmp/")]).ok();
    rig.cli(&["cp", &sandbox.at("/tmp/file"), local.path().to_str().unwrap()]).ok();

    let big: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_le_bytes).collect();
    rig.cli_with(&["cp", "-", &sandbox.at("/tmp/big")], &big).ok();
    assert!(rig.cli(&["cp", &sandbox.at("/tmp/big"), "-"]).stdout == big);
    rig.cli(&["cp", &sandbox.at("/tmp/big"), "/dev/null"]).ok();
    assert!(fs::symlink_metadata("/dev/null").unwrap().permissions().mode() & 0o170_000 == 0o020_000);
}

#[test]
fn x01_what_cannot_be_copied_is_named() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    rig.cli(&["exec", &sandbox.id, "mkfifo /tmp/fifo"]).ok();
    rig.cli(&["cp", "/no/such/file", &sandbox.at("/tmp/x")]).failed("/no/such/file");
    rig.cli(&["cp", &sandbox.at("/no/such/file"), "/tmp"]).failed("/no/such/file");
    rig.cli(&["cp", &sandbox.at("/tmp"), "-"]).failed("IS_DIRECTORY");
    let local = tempfile::tempdir().unwrap();
    rig.cli(&["cp", &sandbox.at("/tmp"), local.path().join("x").to_str().unwrap()]).failed("/tmp/fifo");
    rig.cli(&["cp", "nosuch-sandbox:/x", "/tmp"]).failed("SANDBOX_NOT_FOUND");
    assert_eq!(fs::read_dir(local.path()).unwrap().count(), 1);
}

#[test]
fn f01_files_are_made_moved_renamed_and_deleted() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    let at = |path: &str| format!("{id}:{path}");
    let exists = |path: &str| {
        let said = rig.cli(&["file", "exists", &at(path)]);
        assert_eq!(said.text(), format!("{}\n", said.code() == 0));
        said.code() == 0
    };
    rig.cli(&["file", "mkdir", &at("/srv/a/b")]).failed("FILE_NOT_FOUND");
    let made = rig.cli(&["file", "mkdir", "-p", &at("/srv/a/b"), &at("rel")]);
    assert_eq!(made.ok(), "/srv/a/b\nrel\n");
    assert!(exists("/srv/a/b") && exists("/workspace/rel") && !exists("/srv/c"));
    rig.cli(&["exec", id, "echo one > /srv/one"]).ok();
    rig.cli(&["file", "mv", &at("/srv/one"), "/srv/a/b"]).ok();
    assert!(exists("/srv/a/b/one") && !exists("/srv/one"), "it went into the directory");
    assert_eq!(rig.cli(&["file", "rename", &at("/srv/a/b/one"), &at("/srv/two")]).ok(), "/srv/two\n");
    assert_eq!(rig.cli(&["exec", id, "cat /srv/two"]).ok(), "one\n");

    let deleted = rig.cli(&["file", "rm", &at("/srv/two"), &at("/srv/a"), &at("/srv/two")]);
    assert_eq!((deleted.code(), deleted.text()), (125, "/srv/two\n"));
    assert!(
        deleted.stderr.contains("IS_DIRECTORY") && deleted.stderr.contains("FILE_NOT_FOUND"),
        "{}",
        deleted.stderr
    );
    rig.cli(&["file", "rm", "not-there:/x"]).failed("SANDBOX_NOT_FOUND");
    rig.cli(&["file", "mv", &at("/srv/a"), "other:/srv"]).failed("another sandbox");
    rig.cli(&["file", "exists", "/etc"]).failed("no SANDBOX:PATH");
}

#[test]
fn b13_a_copy_is_named_by_what_was_typed() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let local = tempfile::tempdir().unwrap();
    let at = |name: &str| local.path().join(name);
    let text = |name: &str| fs::read_to_string(at(name)).unwrap();
    fs::create_dir(at(".ssh")).unwrap();
    fs::write(at(".ssh/authorized_keys"), "the operator's").unwrap();
    let into = local.path().to_str().unwrap();
    rig.cli(&[
        "exec",
        &sandbox.id,
        "mkdir -p /x/.ssh && echo planted > /x/.ssh/authorized_keys && rmdir /workspace && ln -s /x/.ssh /workspace",
    ])
    .ok();
    // The name that `pwd -P` would tell is the sandbox's.
    for source in [".", ""] {
        rig.cli(&["cp", "--force", &sandbox.at(source), into]).ok();
        assert_eq!(text(".ssh/authorized_keys"), "the operator's");
        assert_eq!(text("authorized_keys"), "planted\n", "the content goes where it was asked for");
        fs::remove_file(at("authorized_keys")).unwrap();
    }
    // Nor does content that the sandbox has named replace what is there.
    rig.cli(&["cp", &sandbox.at("/x/."), into]).failed("--force");
    assert_eq!(text(".ssh/authorized_keys"), "the operator's");
    assert_eq!(fs::read_dir(local.path()).unwrap().count(), 1);
    rig.cli(&["cp", &sandbox.at("/x/."), at("new").to_str().unwrap()]).ok();
    assert_eq!(text("new/.ssh/authorized_keys"), "planted\n");

    // A link that one copy brought does not lead the next one out.
    rig.cli(&[
        "exec",
        &sandbox.id,
        &format!("mkdir -p /y /z/data && ln -s {into}/.ssh /y/data && ln -s {into}/.ssh/authorized_keys /y/file && echo planted | tee /z/data/authorized_keys > /z/file"),
    ])
    .ok();
    let copy = at("copy");
    rig.cli(&["cp", &sandbox.at("/y"), copy.to_str().unwrap()]).ok();
    assert!(fs::symlink_metadata(copy.join("data")).unwrap().is_symlink());
    rig.cli(&["cp", &sandbox.at("/z/data"), copy.to_str().unwrap()]).failed("enter");
    rig.cli(&["cp", &sandbox.at("/z/file"), copy.to_str().unwrap()]).ok();
    assert_eq!(text(".ssh/authorized_keys"), "the operator's");
    assert_eq!(text("copy/file"), "planted\n");
}

#[test]
fn b13_sizes_are_bounded_and_holes_stay_holes() {
    use std::os::unix::fs::MetadataExt as _;
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let local = tempfile::tempdir().unwrap();
    rig.cli(&[
        "exec",
        &sandbox.id,
        "mkdir /tmp/big /tmp/holes && truncate -s 8T /tmp/big/file && truncate -s 40M /tmp/holes/file \
         && printf end >> /tmp/holes/file && truncate -s 50M /tmp/holes/file",
    ])
    .ok();
    let to = local.path().join("big");
    rig.cli(&["cp", &sandbox.at("/tmp/big"), to.to_str().unwrap()]).failed("are free here");
    rig.cli(&["cp", &sandbox.at("/tmp/big/file"), to.to_str().unwrap()]).failed("are free here");
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0, "nothing was written");
    for from in ["/tmp/holes", "/tmp/holes/file"] {
        let to = local.path().join("holes");
        rig.cli(&["cp", &sandbox.at(from), to.to_str().unwrap()]).ok();
        let file = to.join("file");
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!(metadata.len(), 50 << 20);
        assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks are in use", metadata.blocks());
        assert_eq!(&fs::read(&file).unwrap()[40 << 20..][..4], b"end\0");
    }
}

#[test]
fn b13_one_name_that_cannot_be_copied_does_not_end_the_copy() {
    use std::os::unix::ffi::OsStrExt as _;
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let local = tempfile::tempdir().unwrap();
    rig.cli(&[
        "exec",
        &sandbox.id,
        r"mkdir -p /tmp/tree && cd /tmp/tree && echo 1 > a && echo 2 > $'bad\xff' && echo 3 > z && mkfifo fifo",
    ])
    .ok();
    let to = local.path().join("tree");
    let copied = rig.cli(&["cp", "--json", &sandbox.at("/tmp/tree"), to.to_str().unwrap()]);
    assert_eq!(copied.code(), 125);
    assert_eq!((&copied.json()["files"], &copied.json()["skipped"]), (&2.into(), &2.into()));
    assert!(copied.stderr.contains("bad") && copied.stderr.contains("fifo"), "{}", copied.stderr);
    assert_eq!(fs::read_to_string(to.join("z")).unwrap(), "3\n");

    fs::write(to.join(std::ffi::OsStr::from_bytes(b"odd\xff")), "").unwrap();
    let copied = rig.cli(&["cp", "--json", to.to_str().unwrap(), &sandbox.at("/tmp/again")]);
    assert_eq!((copied.code(), &copied.json()["files"]), (125, &2.into()));
    assert!(copied.stderr.contains("odd"), "{}", copied.stderr);
}

#[test]
fn b13_an_interrupt_leaves_no_unfinished_file() {
    use crate::rig::Running;
    use rustix::process::Signal;
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let local = tempfile::tempdir().unwrap();
    rig.cli(&["exec", &sandbox.id, "mkdir /tmp/tree && head -c 600M /dev/urandom > /tmp/tree/file"]).ok();
    for from in ["/tmp/tree", "/tmp/tree/file"] {
        for signal in [Signal::INT, Signal::TERM] {
            let to = local.path().join("to");
            fs::create_dir(&to).unwrap();
            let copy = Running::start(&mut rig.command(&["cp", &sandbox.at(from), to.to_str().unwrap()]));
            // The unfinished file is there.
            let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
            while !has_partial(&to) {
                assert!(std::time::Instant::now() < until, "no file is being written");
                std::thread::yield_now();
            }
            copy.signal(signal);
            let done = copy.done();
            assert_eq!(done.code(), 128 + signal.as_raw(), "{done:?}");
            assert!(!has_partial(&to), "{from}");
            fs::remove_dir_all(&to).unwrap();
        }
    }
}

/// Whether a file is being written somewhere below.
fn has_partial(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().any(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name();
        name.to_string_lossy().starts_with(".sandcrab-")
            || entry.file_type().unwrap().is_dir() && has_partial(&entry.path())
    })
}

#[test]
fn f01_programs_that_watch_a_file_see_every_write() {
    use crate::rig::Running;
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    rig.cli(&["exec", id, "echo 'console.log(\"run 1\")' >app.js; echo 'line 1' >log; ln log other"]).ok();
    let fs_watch = r#"node -e 'fs.watch("app.js", () => console.log("heard", fs.readFileSync("app.js", "utf8").trim())); console.log("watches")'"#;
    for (name, command) in [("node", "node --watch app.js"), ("tail", "tail -f log"), ("watch", fs_watch)] {
        rig.cli(&["start", "--id", name, id, command]).ok();
    }
    let mut logs: Vec<Running> = ["node", "tail", "watch"]
        .map(|name| Running::start(&mut rig.command(&["logs", "-f", id, name])))
        .into();
    logs[0].wait_for("run 1\n");
    logs[1].wait_for("line 1\n");
    logs[2].wait_for("watches\n");
    for number in 2..6 {
        let app = format!("console.log(\"run {number}\")\n");
        rig.cli_with(&["cp", "-", &format!("{id}:app.js")], app.as_bytes()).ok();
        logs[0].wait_for(&format!("run {number}\n"));
        logs[2].wait_for(&format!("heard {app}"));
        let log: String = (1..=number).map(|line| format!("line {line}\n")).collect();
        rig.cli_with(&["cp", "-", &format!("{id}:log")], log.as_bytes()).ok();
        logs[1].wait_for(&format!("line {number}\n"));
        assert_eq!(rig.cli(&["exec", id, "cat other"]).ok(), log, "another name of the same file");
    }
}
