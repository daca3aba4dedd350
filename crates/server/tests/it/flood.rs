//! Floods of HTTP/2 frames from a caller without a key: the server cuts the connection or goes on, and answers others.

use crate::harness::{TestServer, within};
use crate::peers::{self, Shared};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `GET /v1/sandboxes` without a key, as HPACK of literals.
fn head() -> Vec<u8> {
    let mut head = vec![0x82, 0x86];
    for (name, value) in [(":path", "/v1/sandboxes"), (":authority", "localhost")] {
        head.push(0);
        for text in [name, value] {
            head.push(text.len() as u8);
            head.extend_from_slice(text.as_bytes());
        }
    }
    head
}

/// The head of a connection's request by its number.
fn request(number: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, 2 * number + 1, &head())
}

/// What a flood sends next, by how often it has sent.
type Turn = Box<dyn Fn(u32) -> Vec<u8>>;

/// How long a flood goes on.
const FLOOD: Duration = Duration::from_secs(1);

/// Sends the frames of `turn` again and again for a while; whether the server cut the connection.
async fn flood(server: &TestServer, turn: impl Fn(u32) -> Vec<u8>) -> bool {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let (mut read, mut write) = stream.split();
    let sending = async {
        for batch in 0.. {
            let frames: Vec<u8> = (0..50).flat_map(|n| turn(batch * 50 + n)).collect();
            if write.write_all(&frames).await.is_err() {
                return;
            }
        }
    };
    let reading = async {
        let mut buffer = [0; 1 << 16];
        // The end of a connection that is cut off may be an error.
        while let Ok(1..) = read.read(&mut buffer).await {}
    };
    let ended = async {
        tokio::select! {
            () = sending => {}
            () = reading => {}
        }
    };
    tokio::time::timeout(FLOOD, ended).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c12_floods_of_http2_frames_hold_up_nobody() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    // A request that is answered, as the control: the frames are right.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let good = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &request(0, END_HEADERS | END_STREAM)].concat();
    stream.write_all(&good).await.unwrap();
    let mut came = Vec::new();
    within("an answer", async {
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&came).contains("no Authorization header came") {
            let length = stream.read(&mut buffer).await.unwrap();
            assert!(length > 0, "closed without an answer");
            came.extend_from_slice(&buffer[..length]);
        }
    })
    .await;

    let floods: [(&str, Turn); 8] = [
        // (CVE-2023-44487)
        (
            "rapid resets",
            Box::new(|n| {
                let reset = frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes());
                [request(n, END_HEADERS | END_STREAM), reset].concat()
            }),
        ),
        ("bodies that never come", Box::new(|n| request(n, END_HEADERS))),
        // (CVE-2024-27316)
        (
            "a head without an end",
            Box::new(|n| match n {
                0 => request(0, 0),
                _ => frame(CONTINUATION, 0, 1, b"\0\x01x\x04yyyy"),
            }),
        ),
        ("pings", Box::new(|_| frame(PING, 0, 0, &[7; 8]))),
        ("settings", Box::new(|_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]))),
        ("data of no stream", Box::new(|_| frame(DATA, 0, 1, &[]))),
        ("window updates", Box::new(|_| frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()))),
        ("goodbyes", Box::new(|_| frame(GOAWAY, 0, 0, &[0; 8]))),
    ];
    for (name, turn) in &floods {
        let (cut, asked) = tokio::join!(flood(&server, turn), async {
            tokio::time::sleep(FLOOD / 2).await;
            let asked = Instant::now();
            server.request(http::Method::GET, "/health").key(None).send().await.ok();
            server.get("/v1/sandboxes").await.ok();
            asked.elapsed()
        });
        assert!(asked < Duration::from_secs(5), "during {name}: {asked:?}");
        assert!(cut || !matches!(*name, "a head without an end" | "data of no stream"), "{name} went on");
    }
}
