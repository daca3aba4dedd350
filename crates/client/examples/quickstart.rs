//! Two sessions of one sandbox, each with its own environment and directory.
//!
//! Start a server with `sandcrab serve`, then `cargo run -p sandcrab-client --example quickstart`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use sandcrab_client::api::session::CreateSession;
use sandcrab_client::{Client, ExecEvent, SandboxOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::from_env()?;
    let sandbox = client.sandbox("quickstart", SandboxOptions::default())?;

    let prod = CreateSession {
        id: Some("prod".parse()?),
        env: [("NODE_ENV".to_owned(), Some("production".to_owned()))].into(),
        cwd: Some("/workspace/prod".to_owned()),
        ..CreateSession::default()
    };
    let prod = sandbox.create_session(&prod).await?;
    // A session needs no ceremony: its first command makes it.
    let test = sandbox.session("test")?;
    test.exec("export NODE_ENV=test; cd /tmp").await?;

    let (first, second) =
        tokio::join!(prod.exec("echo $NODE_ENV in $PWD").run(), test.exec("echo $NODE_ENV in $PWD").run());
    print!("{}{}", first?.stdout_text(), second?.stdout_text());

    sandbox.files().write("/workspace/count.sh", "for n in 1 2 3; do echo $n; sleep 0.1; done\n").await?;
    let mut events = prod.exec("bash /workspace/count.sh").stream().await?;
    while let Some(event) = events.next().await {
        match event? {
            ExecEvent::Stdout(bytes) => print!("{}", String::from_utf8_lossy(&bytes)),
            ExecEvent::Complete(outcome) => println!("exit code {}", outcome.exit_code),
            _ => {}
        }
    }

    sandbox.destroy().await?;
    Ok(())
}
