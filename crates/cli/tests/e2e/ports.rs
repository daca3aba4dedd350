//! `expose`, `unexpose`, `ports`: a server inside a sandbox, seen from outside.

use crate::rig::Rig;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What a browser gets at a URL of `localhost`.
fn get(url: &str) -> String {
    let host = url.strip_prefix("http://").unwrap().trim_end_matches('/');
    let port: u16 = host.rsplit_once(':').unwrap().1.parse().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET /hello.txt HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn c02_a_port_is_exposed_visited_and_taken_back() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    rig.cli(&["exec", id, "echo hello from inside > hello.txt"]).ok();
    let site = "python3 -m http.server 8080 --bind 127.0.0.1 > site.log 2>&1 &
        until (exec 3<> /dev/tcp/127.0.0.1/8080) 2> /dev/null; do kill -0 $! || exit 1; sleep 0.05; done";
    rig.cli(&["exec", id, site]).ok();
    let url =
        rig.cli(&["expose", "--name", "web", "--token", "my_own_token", id, "8080"]).ok().trim().to_owned();
    assert!(url.starts_with(&format!("http://8080-{id}-my_own_token.localhost:")), "{url}");
    let answer = get(&url);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello from inside\n"), "{answer}");
    rig.cli(&["expose", id, "8080"]).failed("PORT_ALREADY_EXPOSED");
    let list = rig.cli(&["ports", "--json", id]).json();
    assert_eq!((list[0]["port"].as_u64(), list[0]["url"].as_str()), (Some(8080), Some(&*url)));
    assert!(rig.cli(&["ports", id]).ok().contains(&url));
    assert_eq!(rig.cli(&["unexpose", id, "8080"]).ok().trim(), "8080");
    assert!(get(&url).starts_with("HTTP/1.1 404 "));
    rig.cli(&["unexpose", id, "8080"]).failed("PORT_NOT_EXPOSED");
    rig.cli(&["expose", id, "80"]).failed("INVALID_PORT_NUMBER");
}
