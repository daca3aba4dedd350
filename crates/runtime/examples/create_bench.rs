//! Medians of creating a sandbox (until its agent has answered a first command) and of destroying it.
//!
//! `cargo run -p sandcrab-runtime --example create_bench -- target/…/runtime-fixture [rounds]`, as root.
#![expect(clippy::print_stdout, reason = "a benchmark's result")]

use sandcrab_api::ids::SandboxId;
use sandcrab_runtime::image::{Image, Tree};
use sandcrab_runtime::native::{Config, Native, Program};
use sandcrab_runtime::{Driver, InstanceId, SandboxSpec};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn median(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[0])
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let fixture = arguments.next().ok_or("the fixture's path")?;
    let rounds: usize = arguments.next().map_or(Ok(50), |text| text.parse())?;
    let disk = arguments.next().map(|text| text.parse()).transpose()?;

    let dir = tempfile::tempdir()?;
    let root = dir.path().join("image");
    std::fs::create_dir_all(root.join("usr"))?;
    for link in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link))?;
    }
    let program = |command: &str| Program {
        path: fixture.clone().into(),
        argv: vec!["fixture".into(), command.into()],
    };
    let mut config = Config::new(dir.path().join("data"));
    (config.launch, config.agent) = (program("__launch"), program("agent"));
    let driver = Native::open(config)?;
    let trees = vec![
        Tree { at: "/".into(), layers: vec![root] },
        Tree { at: "/usr".into(), layers: vec!["/usr".into()] },
    ];
    driver.add_image("test", Image { key: "test".into(), trees, env: Default::default() });
    let mut spec = SandboxSpec {
        sandbox: SandboxId::parse("bench")?,
        image: "test".into(),
        limits: Default::default(),
        network: Default::default(),
        isolation: Default::default(),
        env: Default::default(),
    };
    spec.limits.disk = disk;

    let (mut create, mut first, mut destroy, mut memory) = (vec![], vec![], vec![], 0);
    for _ in 0..rounds {
        let id = InstanceId::random();
        let start = Instant::now();
        driver.create(&id, &spec).await?;
        create.push(start.elapsed());
        let mut stream = driver.connect(&id).await?;
        stream.write_all(b"{\"script\":\"\",\"uid\":0}\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        first.push(start.elapsed());
        memory = driver.stats(&id).await?.memory.unwrap_or_default();
        let start = Instant::now();
        driver.destroy(&id).await?;
        destroy.push(start.elapsed());
    }
    for (what, times) in [("create", create), ("create + first exec", first), ("destroy", destroy)] {
        let (median, best) = median(times);
        println!("{what:20} {:6.2} ms (min {:.2})", median.as_secs_f64() * 1e3, best.as_secs_f64() * 1e3);
    }
    println!("memory charged after one command: {} kB", memory >> 10);
    Ok(())
}
