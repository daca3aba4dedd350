//! One command in a warm session, and many at once.

use super::{Bench, TURNS, Turns, run};
use crate::bare::http::Http;
use crate::bare::shell::Shell;
use crate::figure::{Figure, Promise};
use crate::table::Row;
use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use sandcrab_client::ExecEvent;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// 300 functions of a few lines, as a shell has that was used for a while.
const FUNCTIONS: &str = r#"for i in $(seq 300); do eval "f$i() { local a=\$1; if [ -n \"\$a\" ]; then echo $i \"\$a\"; fi; }"; done"#;
/// A variable of 10 MB.
const VARIABLE: &str = "printf -v big '%*s' 10000000 x";

pub(super) async fn measure(bench: &Bench, http: &Http, rows: &mut Vec<Row>) -> Result<()> {
    if bench.wants("exec-true") {
        let (bare, ours) = exec(bench, "true", "", 600).await?;
        let within = Promise::WithinBoth { median: 0.25, p99: 2.0 };
        let row = Row::new("exec-true", "`exec` of `true` in a warm session", ours, within);
        rows.push(row.beside(bare, "bash over FIFOs").typescript(Promise::Within { median: 0.45 }));
        let hogs = Hogs::start()?;
        let (_bare, crowded) = exec(bench, "true", "", 600).await?;
        drop(hogs);
        let row = Row::new(
            "exec-true",
            "the same, beside a busy program per CPU",
            crowded,
            Promise::TimesBare(1.5),
        );
        rows.push(row.beside(ours, "the row before"));
        let mut echo = Vec::new();
        for _ in 0..2000 {
            echo.push(http.time_echo().await?);
        }
        rows.push(Row::new(
            "http-floor",
            "for comparison: a POST to a server that does nothing",
            Figure::of(echo),
            Promise::Shown,
        ));
    }
    if bench.wants("exec-functions") {
        let (bare, ours) = exec(bench, "true", FUNCTIONS, 600).await?;
        let row = Row::new(
            "exec-functions",
            "the same, 300 functions in the shell",
            ours,
            Promise::Within { median: 0.25 },
        );
        rows.push(row.beside(bare, "bash over FIFOs"));
    }
    if bench.wants("exec-variable") {
        let (bare, ours) = exec(bench, "true", VARIABLE, 300).await?;
        let row = Row::new("exec-variable", "the same, a 10 MB variable in the shell", ours, Promise::Shown);
        rows.push(row.beside(bare, "bash over FIFOs"));
    }
    if bench.wants("exec-bin-true") {
        let (bare, ours) = exec(bench, "/bin/true", "", 300).await?;
        let row = Row::new("exec-bin-true", "`exec` of `/bin/true`", ours, Promise::TimesBare(1.3));
        rows.push(row.beside(bare, "bash over FIFOs"));
    }
    if bench.wants("stream-first") {
        let ours = first_byte(bench, 500).await?;
        rows.push(Row::new(
            "stream-first",
            "`execStream`: first byte",
            ours,
            Promise::Within { median: 1.0 },
        ));
    }
    Ok(())
}

/// Programs that use every CPU without a pause, until this is dropped.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start() -> Result<Self> {
        let mut hogs = Self(Vec::new());
        for _ in 0..std::thread::available_parallelism()?.get() {
            #[expect(clippy::disallowed_methods, reason = "nothing of it is kept or read")]
            hogs.0.push(Command::new("/bin/bash").args(["-c", "while :; do :; done"]).spawn()?);
        }
        Ok(hogs)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _gone = hog.kill();
            let _gone = hog.wait();
        }
    }
}

/// One command over and over, `each` times in each turn, after `prepare` in the same shell.
async fn exec(bench: &Bench, command: &str, prepare: &str, each: usize) -> Result<(Figure, Figure)> {
    eprintln!("exec of {command}, {} bytes of preparation", prepare.len());
    let sandbox = bench.warm("bench-exec").await?;
    let mut shell = Shell::start(bench.scratch.join("fifos"))?;
    if !prepare.is_empty() {
        run(&sandbox, prepare).await?;
        shell.time(prepare)?;
    }
    let mut turns = Turns::new();
    for _ in 0..TURNS {
        for _ in 0..each {
            turns.bare.push(shell.time(command)?);
        }
        for _ in 0..each {
            turns.ours.push(run(&sandbox, command).await?);
        }
    }
    shell.stop()?;
    sandbox.destroy().await?;
    Ok(turns.figures())
}

/// From sending the request to holding the first bytes of output.
async fn first_byte(bench: &Bench, count: usize) -> Result<Figure> {
    eprintln!("first byte of a stream");
    let sandbox = bench.warm("bench-stream").await?;
    let mut times = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        let mut stream = sandbox.exec("echo first").stream().await?;
        let mut first = None;
        while let Some(event) = stream.next().await {
            if matches!(event?, ExecEvent::Stdout(_)) {
                first.get_or_insert_with(|| begun.elapsed());
            }
        }
        times.push(first.context("a stream without output")?);
    }
    sandbox.destroy().await?;
    Ok(Figure::of(times))
}

const SESSIONS: usize = 50;
const CONCURRENT: usize = 20;
const TOTAL: usize = 20_000;

/// 50 sessions, each asked by 20 callers at once.
pub(super) async fn measure_many(bench: &Bench, http: &Http, rows: &mut Vec<Row>) -> Result<()> {
    if !bench.wants("many") {
        return Ok(());
    }
    eprintln!("{SESSIONS} sessions, {CONCURRENT} callers each");
    let sandbox = bench.warm("bench-many").await?;
    let sessions: Vec<_> =
        (0..SESSIONS).map(|number| sandbox.session(format!("s{number}"))).collect::<Result<_, _>>()?;
    try_join_all(sessions.iter().map(async |session| anyhow::Ok(session.exec("true").await?))).await?;
    let (mut bare, mut ours) = (Duration::ZERO, Duration::ZERO);
    let each = TOTAL / TURNS / (SESSIONS * CONCURRENT);
    for _ in 0..TURNS {
        bare += http.time_many(SESSIONS * CONCURRENT, each).await?;
        let begun = Instant::now();
        try_join_all(sessions.iter().flat_map(|session| std::iter::repeat_n(session, CONCURRENT)).map(
            async |session| {
                for _ in 0..each {
                    session.exec("true").await?;
                }
                anyhow::Ok(())
            },
        ))
        .await?;
        ours += begun.elapsed();
    }
    sandbox.destroy().await?;
    let total = each * TURNS * SESSIONS * CONCURRENT;
    let row = Row::new(
        "many",
        "50 sessions × 20 concurrent `exec true`",
        Figure::rate(total, ours),
        Promise::AtLeast(8000.0),
    );
    rows.push(
        row.beside(Figure::rate(total, bare), "POSTs to a server that does nothing")
            .typescript(Promise::AtLeast(3000.0)),
    );
    Ok(())
}
