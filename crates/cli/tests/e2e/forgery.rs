//! A server's log (B12), and servers on machines that lack a part of the isolation (A29).

use crate::rig::{KEY, Running, Server, alone, command, program, sandbox, tool};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// What a line would begin with that the server did not write, and what would drive a terminal.
const FORGED: &str =
    "\n{\"level\":\"ERROR\",\"forged\":1}\n2026-01-01T00:00:00Z ERROR forged\r\u{1b}[31m\u{9b}31m\u{202e}";

/// Sends a request as it is; gives the answer's head.
fn send(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    stream.write_all(request).unwrap();
    let mut head = String::new();
    BufReader::new(stream).read_line(&mut head).unwrap();
    head
}

/// A server that logs everything, with its log.
fn logged(json: bool) -> (std::process::Child, String, std::thread::JoinHandle<Vec<u8>>) {
    let mut serve = program();
    serve.args(["serve", "--listen", "127.0.0.1:0", "--api-key", KEY, "--log", "debug"]);
    serve.args(json.then_some("--json"));
    let mut child = serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut log = child.stderr.take().unwrap();
    let mut line = String::new();
    let url = loop {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "the server did not start");
        if let Some(at) = line.find("http://") {
            break line[at..].split(['"', ' ', '\n']).next().unwrap().trim_end_matches('/').to_owned();
        }
    };
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        log.read_to_end(&mut all).unwrap();
        // Kept open so far: a server that speaks to a closed pipe would be killed.
        drop(said);
        all
    });
    (child, url, reader)
}

#[test]
fn b12_nothing_that_callers_or_sandboxes_say_makes_a_line_of_the_log() {
    let _alone = alone();
    for json in [true, false] {
        let (mut server, url, log) = logged(json);
        let address = url.trim_start_matches("http://").to_owned();
        let id = format!("b12-{}", std::process::id());
        let escaped: String = FORGED.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let text = serde_json::to_string(FORGED).unwrap();
        let paths = [
            ("GET", format!("/v1/sandboxes/{escaped}")),
            ("GET", format!("/v1/sandboxes/{id}/{escaped}")),
            ("GET", format!("/v1/sandboxes/{id}/files/content?path=/{escaped}")),
            ("GET", format!("/v1/sandboxes/{id}/sessions/{escaped}")),
            ("DELETE", format!("/v1/sandboxes/{id}/processes/{escaped}")),
            (&*format!("X{}", "Y".repeat(20)), "/".to_owned()),
        ]
        .map(|(method, path)| (method.to_owned(), path));
        let bodies = [
            ("/exec", format!("{{\"command\":{text}}}")),
            ("/exec", format!("{{\"command\":\"true\",\"cwd\":{text}}}")),
            ("/exec", format!("{{{text}:1}}")),
            ("/processes", format!("{{\"command\":{text}}}")),
            ("/processes", format!("{{\"command\":\"true\",\"cwd\":{text}}}")),
            ("/git/checkout", format!("{{\"repoUrl\":{text}}}")),
            ("/git/checkout", format!("{{\"repoUrl\":\"http://127.0.0.1:1/r\",\"branch\":{text}}}")),
            ("/code/run", format!("{{\"code\":{text}}}")),
            ("/ports", format!("{{\"port\":8000,\"name\":{text},\"hostname\":{text}}}")),
            ("/files/mkdir", format!("{{\"path\":{text}}}")),
        ];
        let mut answers = Vec::new();
        for (method, path) in &paths {
            for host in [&address, &format!("8000-{id}-{escaped}.localhost")] {
                // What no header may hold stands in as bytes that one may.
                let odd = FORGED.replace(['\n', '\r', '\u{1b}'], "\t");
                let head = format!(
                    "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {KEY}\r\nuser-agent: {odd}\r\n\
                     x-request-id: {odd}\r\norigin: {odd}\r\nlast-event-id: {odd}\r\nconnection: close\r\n\r\n"
                );
                answers.push(send(&address, head.as_bytes()));
            }
        }
        for (path, body) in &bodies {
            let head = format!(
                "POST /v1/sandboxes/{id}{path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {KEY}\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            answers.push(send(&address, head.as_bytes()));
        }
        let put = format!("{{\"image\":{text},\"labels\":{{{text}:{text}}}}}");
        for body in [put, format!("{{\"labels\":{{\"a\":{text}}}}}")] {
            let head = format!(
                "PUT /v1/sandboxes/{id} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {KEY}\r\ncontent-type: \
                 application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            answers.push(send(&address, head.as_bytes()));
        }
        // Not even HTTP.
        send(&address, format!("{FORGED}{FORGED}\r\n\r\n").as_bytes());
        assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 ")), "{answers:?}");
        assert!(!answers.iter().any(|answer| answer.starts_with("HTTP/1.1 500")), "{answers:?}");

        let agents = crate::rig::data_dir().join("instances");
        let agent_logs: Vec<u8> = std::fs::read_dir(&agents)
            .unwrap()
            .flatten()
            .flat_map(|entry| std::fs::read(entry.path().join("agent.log")).unwrap_or_default())
            .collect();
        Running::start(&mut command(&url, &["rm", "-f", &id])).done().ok();
        server.kill().unwrap();
        server.wait().unwrap();
        let log = String::from_utf8(log.join().unwrap()).unwrap();
        assert!(log.lines().count() >= paths.len() + bodies.len(), "the log tells of the requests: {log}");
        for line in log.lines().chain(String::from_utf8(agent_logs).unwrap().lines()) {
            assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
            assert!(!line.starts_with("{\"level\"") && !line.starts_with("2026-01-01T"), "{line:?}");
        }
        if json {
            for line in log.lines() {
                assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line:?}");
            }
        }
    }
}

/// A server in a mount namespace of its own in which `hide` was done.
fn crippled(hide: &str, more: &[&str]) -> Command {
    let mut serve = tool("unshare");
    let script = format!("set -e; mount --make-rprivate /; {hide}; exec \"$@\"");
    serve.args(["--mount", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_sandcrab"), "serve", "--json"]);
    serve.args(["--listen", "127.0.0.1:0", "--api-key", KEY, "--log", "error"]).args(more);
    serve.env("SANDCRAB_DATA_DIR", crate::rig::data_dir());
    serve
}

/// Starts it; gives its URL.
fn started(hide: &str, more: &[&str]) -> (Running, String) {
    let mut serve = Running::start(&mut crippled(hide, more));
    serve.wait_for("\"url\":\"");
    let url = serve.text_until("\"");
    (serve, url)
}

#[test]
fn a29_a_machine_that_lacks_a_part_of_the_isolation_is_refused_by_its_name() {
    let _alone = alone();
    for (feature, hide) in [
        (
            "cgroup",
            "for at in $(awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts | sort -r); do umount -l $at; done",
        ),
        (
            "quota",
            "dev=$(mktemp -d); mount -t tmpfs none $dev; mkdir $dev/shm; ln -s /proc/self/fd $dev/fd
            for d in null zero full random urandom tty; do cp -a /dev/$d $dev; done; mount --move $dev /dev; rmdir $dev",
        ),
    ] {
        let done = Running::start(&mut crippled(hide, &[])).done();
        assert!(done.status.code().is_some_and(|code| code != 0), "{feature}: {done:?}");
        assert!(done.stderr.contains(&format!("--allow-missing {feature}")), "{feature}: {done:?}");
        // Weaker when it is asked for by name: of that alone.
        let (weaker, url) = started(hide, &["--allow-missing", feature]);
        let id = format!("a29-{}-{feature}", std::process::id());
        let ran = Running::start(&mut command(&url, &["exec", &id, "echo runs"])).done();
        assert_eq!(ran.ok(), "runs\n");
        Running::start(&mut command(&url, &["rm", &id])).done().ok();
        weaker.signal(rustix::process::Signal::TERM);
        weaker.done();
    }
    // Where nothing is missing nothing is said.
    let server = Server::start("127.0.0.1:0");
    let whole = sandbox(&server);
    assert_eq!(
        Running::start(&mut command(&server.url, &["exec", &whole.id, "echo runs"])).done().ok(),
        "runs\n"
    );
}
