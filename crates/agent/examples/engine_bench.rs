//! Measures the session engine alone, without HTTP: medians of round trips as its owner makes them, with fresh pipes.
//!
//! `cargo run --profile dist -p sandcrab-agent --example engine_bench`
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints, and stops at the first surprise"
)]

use bytes::Bytes;
use rustix::fd::OwnedFd;
use rustix::pipe::{PipeFlags, pipe_with};
use sandcrab_agent::shell::image::ShellImage;
use sandcrab_agent::shell::{RunRequest, SandboxEnv, Session, SessionConfig, StopReason};
use sandcrab_agent::spawn::{Identity, Spawner};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

struct Bench {
    spawner: Spawner,
    image: ShellImage,
    env: SandboxEnv,
}

impl Bench {
    fn session(&self) -> Session {
        Session::new(SessionConfig::new("/", self.env.clone(), self.image.clone()), self.spawner.clone())
            .unwrap()
    }
}

/// One command as an owner runs it: three pipes made, given, read to their ends.
async fn exec(session: &mut Session, text: &Bytes) -> Vec<u8> {
    let (stdin, _) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (out, stdout) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (err, stderr) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let request = RunRequest { text: text.clone(), stdin, stdout, stderr, env: Vec::new(), cwd: None };
    session.run(&request, std::future::pending::<StopReason>()).await.unwrap();
    let mut all = Vec::new();
    for fd in [out, err] {
        rustix::io::ioctl_fionbio(&fd, true).unwrap();
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = rustix::io::read(&fd, &mut buffer) {
            all.extend_from_slice(&buffer[..n]);
        }
    }
    all
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn report(what: &str, times: &mut [Duration]) {
    let median = median(times);
    println!(
        "{what:<48} {:>8.1} us   min {:>8.1}   p99 {:>8.1}",
        median.as_secs_f64() * 1e6,
        times[0].as_secs_f64() * 1e6,
        times[times.len() * 99 / 100].as_secs_f64() * 1e6
    );
}

async fn round_trips(session: &mut Session, text: &str, n: usize) -> Vec<Duration> {
    let text = Bytes::copy_from_slice(text.as_bytes());
    for _ in 0..n / 10 + 1 {
        exec(session, &text).await;
    }
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let start = Instant::now();
        exec(session, &text).await;
        times.push(start.elapsed());
    }
    times
}

/// The limit: a bash that reads lines from one pipe and writes a status to another.
fn bare(line: &str, n: usize) -> Vec<Duration> {
    #[expect(clippy::disallowed_methods, reason = "the reference is a process of its own")]
    let mut child = std::process::Command::new("bash")
        .args(["--norc", "--noprofile"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut to: File = OwnedFd::from(child.stdin.take().unwrap()).into();
    let mut from: File = OwnedFd::from(child.stdout.take().unwrap()).into();
    let mut times = Vec::with_capacity(n);
    for i in 0..n + n / 10 {
        let start = Instant::now();
        to.write_all(format!("{line}; echo $?\n").as_bytes()).unwrap();
        from.read_exact(&mut [0; 2]).unwrap();
        if i >= n / 10 {
            times.push(start.elapsed());
        }
    }
    drop(to);
    child.wait().unwrap();
    times
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let base: BTreeMap<_, _> = [("PATH", "/usr/bin:/bin"), ("HOME", "/root"), ("LANG", "C.UTF-8")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let bench = Bench {
        spawner: Spawner::new(Identity::default()),
        image: ShellImage::find(&sandcrab_agent::files::Files::of_sandbox(&Default::default()).unwrap())
            .unwrap(),
        env: SandboxEnv::new(base),
    };
    let mut session = bench.session();
    report("bare persistent bash, `true`", &mut bare("true", 4000));
    report("warm session, `true`", &mut round_trips(&mut session, "true", 4000).await);
    report(
        "warm session, `x=$((x+1))` (a state each)",
        &mut round_trips(&mut session, "x=$((x+1))", 4000).await,
    );
    report("bare persistent bash, `/bin/true`", &mut bare("/bin/true", 1000));
    report("warm session, `/bin/true`", &mut round_trips(&mut session, "/bin/true", 1000).await);

    let mut functions = bench.session();
    let define: String = (0..300)
        .map(|i| format!("f{i}() {{ local a=$1; if [ \"$a\" ]; then echo {i} \"$a\"; fi; }}\n"))
        .collect();
    exec(&mut functions, &Bytes::from(define)).await;
    report("300 functions, `true`", &mut round_trips(&mut functions, "true", 2000).await);
    report("300 functions, `x=$((x+1))`", &mut round_trips(&mut functions, "x=$((x+1))", 300).await);

    let mut big = bench.session();
    exec(&mut big, &Bytes::from_static(b"v=$(head -c 10000000 /dev/zero | tr '\\0' x)")).await;
    report("10 MB variable, `true`", &mut round_trips(&mut big, "true", 300).await);
    big.end().await.unwrap();

    let text = Bytes::from_static(b"true");
    let mut times = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        let mut session = bench.session();
        exec(&mut session, &text).await;
        times.push(start.elapsed());
        session.end().await.unwrap();
    }
    report("create a session and its first command", &mut times);
    let mut times = Vec::new();
    for _ in 0..200 {
        exec(&mut session, &Bytes::from_static(b"exit 3")).await;
        let start = Instant::now();
        exec(&mut session, &text).await;
        times.push(start.elapsed());
    }
    report("first command after `exit`: start and restore", &mut times);

    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let mut owners = Vec::new();
            let start = Instant::now();
            for _ in 0..50 {
                let mut session = bench.session();
                let text = text.clone();
                owners.push(tokio::task::spawn_local(async move {
                    exec(&mut session, &text).await;
                    session
                }));
            }
            let mut sessions = Vec::new();
            for owner in owners {
                sessions.push(owner.await.unwrap());
            }
            println!("50 sessions created at once: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
            let start = Instant::now();
            let rounds = 400;
            let owners: Vec<_> = sessions
                .into_iter()
                .map(|mut session| {
                    let text = text.clone();
                    tokio::task::spawn_local(async move {
                        for _ in 0..rounds {
                            exec(&mut session, &text).await;
                        }
                        session
                    })
                })
                .collect();
            for owner in owners {
                drop(owner.await.unwrap());
            }
            println!(
                "50 sessions at once: {:.0} commands/s",
                50.0 * f64::from(rounds) / start.elapsed().as_secs_f64()
            );
        })
        .await;
}
