//! Code contexts: a run in a warm one, a new one, and many new ones at once.

use super::Bench;
use crate::figure::{Figure, Promise};
use crate::table::Row;
use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use sandcrab_client::Sandbox;
use sandcrab_client::api::ContextId;
use sandcrab_client::api::code::{CodeLanguage, CreateCodeContext};
use std::time::{Duration, Instant};

/// What is measured of one language.
struct Language {
    language: CodeLanguage,
    warm: (&'static str, &'static str, f64),
    new: (&'static str, &'static str, f64),
}

const LANGUAGES: [Language; 3] = [
    Language {
        language: CodeLanguage::Python,
        warm: ("code-python", "`runCode` of `1+1`, warm: Python", 0.60),
        new: ("context-python", "create a code context and run `1+1`, a spare at hand: Python", 8.0),
    },
    Language {
        language: CodeLanguage::Javascript,
        warm: ("code-javascript", "the same: JavaScript", 0.40),
        new: ("context-javascript", "the same: JavaScript", 3.0),
    },
    Language {
        language: CodeLanguage::Typescript,
        warm: ("code-typescript", "the same: TypeScript", 0.45),
        new: ("context-typescript", "the same: TypeScript", 4.0),
    },
];

/// How long a spare may take to come up behind a run: far longer than it does.
const SPARE: Duration = Duration::from_millis(600);
const AT_ONCE: usize = 10;

pub(super) async fn measure(bench: &Bench, rows: &mut Vec<Row>) -> Result<()> {
    for kind in &LANGUAGES {
        let (key, work, median) = kind.warm;
        if bench.wants(key) {
            eprintln!("1+1 in {}", kind.language);
            let sandbox = bench.warm("bench-code").await?;
            let context = create(&sandbox, kind.language).await?;
            let mut times = Vec::new();
            for number in 0..2200 {
                let took = run(&sandbox, &context).await?;
                if number >= 200 {
                    times.push(took);
                }
            }
            sandbox.destroy().await?;
            rows.push(Row::new(key, work, Figure::of(times), Promise::Within { median }));
        }
    }
    for kind in &LANGUAGES {
        let (key, work, median) = kind.new;
        if bench.wants(key) {
            eprintln!("a new context of {}", kind.language);
            let sandbox = bench.warm("bench-context").await?;
            // The first has no spare, and asks for one.
            take_turn(&sandbox, kind.language).await?;
            let mut times = Vec::new();
            for _ in 0..30 {
                tokio::time::sleep(SPARE).await;
                times.push(take_turn(&sandbox, kind.language).await?);
            }
            sandbox.destroy().await?;
            rows.push(Row::new(key, work, Figure::of(times), Promise::Within { median }));
        }
    }
    if bench.wants("contexts-at-once") {
        eprintln!("{AT_ONCE} contexts at once");
        let (mut one, mut many) = (Vec::new(), Vec::new());
        for turn in 0..5 {
            // A sandbox that has run no code has no spare.
            let sandbox = bench.warm(&format!("bench-contexts-{turn}-one")).await?;
            one.push(take_turn(&sandbox, CodeLanguage::Python).await?);
            sandbox.destroy().await?;
            let sandbox = bench.warm(&format!("bench-contexts-{turn}-many")).await?;
            let begun = Instant::now();
            try_join_all((0..AT_ONCE).map(|_| take_turn(&sandbox, CodeLanguage::Python))).await?;
            many.push(begun.elapsed());
            sandbox.destroy().await?;
        }
        let cores = std::thread::available_parallelism()?.get();
        let rounds = AT_ONCE.div_ceil(cores) as u32;
        let alone = one.into_iter().map(|took| took * rounds).collect();
        let row = Row::new(
            "contexts-at-once",
            "ten Python contexts at once, each with its first result, no spare",
            Figure::of(many),
            Promise::TimesBare(1.5),
        );
        rows.push(row.beside(Figure::of(alone), "one alone × ten ÷ cores"));
    }
    Ok(())
}

async fn create(sandbox: &Sandbox, language: CodeLanguage) -> Result<ContextId> {
    let options = CreateCodeContext { language, ..CreateCodeContext::default() };
    Ok(sandbox.create_code_context(&options).await?.id)
}

async fn run(sandbox: &Sandbox, context: &ContextId) -> Result<Duration> {
    let begun = Instant::now();
    let result = sandbox.run_code("1+1").context(context.clone()).await?;
    let took = begun.elapsed();
    ensure!(result.results.first().is_some_and(|shown| shown.text.as_deref() == Some("2")), "{result:?}");
    Ok(took)
}

/// A new context, its first result, and its end, which is not measured.
async fn take_turn(sandbox: &Sandbox, language: CodeLanguage) -> Result<Duration> {
    let begun = Instant::now();
    let context = create(sandbox, language).await?;
    run(sandbox, &context).await?;
    let took = begun.elapsed();
    sandbox.delete_code_context(&context).await?;
    Ok(took)
}
