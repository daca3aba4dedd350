//! Contents that are made for their reader: long, many, deep (attack B14).

use crate::rig::{KEY, Mode, Rig, Sandbox};
use sandcrab_client::SandboxOptions;
use sandcrab_client::api::sandbox::Limits;
use sandcrab_client::api::units::ByteSize;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// Sends a JSON body to a route of a sandbox, as it is; the status and the body of the answer.
fn post(rig: &Rig, sandbox: &Sandbox<'_>, route: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(rig.address()).unwrap();
    let head = format!(
        "POST /v1/sandboxes/{}{route} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\
        content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        sandbox.remote.id().as_str(),
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // One that is refused before all of it was sent is answered all the same.
    let _refused = stream.write_all(body.as_bytes()).is_err();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The same call several times at once.
fn together(rig: &Rig, sandbox: &Sandbox<'_>, count: usize, route: &str, body: &str) -> Vec<(u16, String)> {
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..count).map(|_| scope.spawn(|| post(rig, sandbox, route, body))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

/// The agent lives, with its session, and was never replaced.
#[track_caller]
fn goes_on(rig: &Rig, sandbox: &Sandbox<'_>) {
    assert_eq!(sandbox.output("echo $ALIVE"), "yes\n");
    let events = rig.wait(sandbox.remote.events()).unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["created"], "{events:?}");
}

fn small(rig: &Rig, megabytes: u64) -> Sandbox<'_> {
    let limits = Limits { memory: Some(ByteSize(megabytes << 20)), ..Limits::default() };
    let sandbox = rig.sandbox_with(SandboxOptions { limits: Some(limits), ..SandboxOptions::default() });
    sandbox.run("export ALIVE=yes");
    sandbox
}

attack!(b14_long_files_against_a_small_memory_limit, [root, rootless, without_landlock], |rig| {
    let sandbox = small(rig, 64);
    // Without control groups there is no limit that could be met.
    let is_limited = rig.mode != Mode::Rootless;
    let body = format!("{{\"path\":\"/workspace/long\",\"content\":\"{}\"}}", "x".repeat(45_000_000));
    let (status, answer) = post(rig, &sandbox, "/files/write", &body);
    assert_eq!(status, if is_limited { 413 } else { 200 }, "{answer:.300}");
    goes_on(rig, &sandbox);
    // The control: one of a size that there is room for.
    let body = format!("{{\"path\":\"/workspace/short\",\"content\":\"{}\"}}", "x".repeat(5_000_000));
    assert_eq!(post(rig, &sandbox, "/files/write", &body).0, 200);
    assert_eq!(sandbox.output("stat -c %s /workspace/short"), "5000000\n");

    sandbox.output("head -c 31000000 /dev/zero > /workspace/nuls");
    for (status, answer) in together(rig, &sandbox, 4, "/files/read", r#"{"path":"/workspace/nuls"}"#) {
        assert_eq!(status, 200, "{answer:.300}");
        assert!(answer.len() > 41_000_000, "{}", answer.len());
    }
    goes_on(rig, &sandbox);
});

attack!(b14_queued_stdin_against_a_small_memory_limit, [root, rootless, without_landlock], |rig| {
    let sandbox = small(rig, 128);
    let body = format!("{{\"command\":\"sleep 1; wc -c\",\"stdin\":\"{}\"}}", "x".repeat(15_000_000));
    let answers = together(rig, &sandbox, 12, "/exec", &body);
    let done =
        answers.iter().filter(|(status, answer)| *status == 200 && answer.contains("15000000\\n")).count();
    let refused =
        answers.iter().filter(|(status, answer)| *status == 429 && answer.contains("QUOTA_EXCEEDED")).count();
    assert!(done >= 1, "the first has room");
    assert_eq!(done + refused, 12, "{:?}", answers.iter().map(|answer| answer.0).collect::<Vec<_>>());
    if rig.mode != Mode::Rootless {
        assert!(refused > 0);
    }
    goes_on(rig, &sandbox);
    assert_eq!(post(rig, &sandbox, "/exec", &body).0, 200, "the room is given back");
});

attack!(b14_huge_listings_against_a_small_memory_limit, [root, rootless, without_landlock], |rig| {
    let sandbox = small(rig, 64);
    // 20,000 long names below a long path: some 80 MB of JSON.
    sandbox.python(
        "os.chdir('/workspace')\nfor _ in range(7): os.mkdir('d' * 240); os.chdir('d' * 240)\n\
         open('f', 'w').close()\nfor n in range(20000): os.link('f', f'{n:0240}')",
    );
    let list = r#"{"path":"/workspace","recursive":true,"includeHidden":true}"#;
    for (status, answer) in together(rig, &sandbox, 3, "/files/list", list) {
        if rig.mode == Mode::Rootless {
            assert!(status == 200 || status == 429, "{answer:.300}");
        } else {
            assert!(status == 413 || status == 429, "{status} {answer:.300}");
        }
    }
    goes_on(rig, &sandbox);
    // The control: a part of it.
    let (status, answer) = post(rig, &sandbox, "/files/list", r#"{"path":"/workspace"}"#);
    assert_eq!((status, answer.contains("\"count\":1")), (200, true), "{answer:.300}");
});
