//! What an agent that is killed leaves behind where no namespace ends with it, as in tests that are cut off.

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use sandcrab_agent::spawn::{Identity, SpawnSpec, Spawner};
    use std::ffi::CString;
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    /// Says that this process is to be the agent.
    const ROLE: &str = "SANDCRAB_TEST_IS_AGENT";
    const NAME: &str = "tests::a_killed_agent_takes_the_programs_along_that_it_started";

    /// Starts programs that would run for ever, says which, and waits to be killed.
    async fn be_the_agent() {
        // Taking an id would take back what was asked of the kernel before.
        let other = Identity { ids: Some((12345, 12345)), ..Identity::default() };
        let mut children = Vec::new();
        for identity in [Identity::default(), other] {
            let args = ["sh", "-c", "while :; do :; done"].map(|arg| CString::new(arg).expect("no NUL"));
            let spec = SpawnSpec {
                program: c"/bin/sh",
                args: &args,
                env: &[],
                cwd: Some(c"/"),
                fds: &[],
                cgroup: None,
                subreaper: true,
            };
            children.push(Spawner::new(identity).spawn(&spec).expect("sh starts"));
        }
        let pids: Vec<_> = children.iter().map(|child| child.pid().as_raw_nonzero().to_string()).collect();
        println!("\nstarted {}", pids.join(" "));
        std::future::pending::<()>().await;
    }

    #[tokio::test]
    async fn a_killed_agent_takes_the_programs_along_that_it_started() {
        if std::env::var_os(ROLE).is_some() {
            return be_the_agent().await;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "an agent is to be killed, which this process cannot be"
        )]
        let mut command = Command::new(std::env::current_exe().expect("the test's path"));
        command.args(["--exact", NAME, "--nocapture"]).env(ROLE, "1").stdout(Stdio::piped());
        let mut agent = command.spawn().expect("the test starts again");
        let output = BufReader::new(agent.stdout.take().expect("its stdout"));
        let mut lines = output.lines().map_while(Result::ok);
        let started = lines.find_map(|line| Some(line.strip_prefix("started ")?.to_owned()));
        let started = started.expect("the agent says what it started");
        let children: Vec<_> = started
            .split(' ')
            .map(|pid| {
                let pid = Pid::from_raw(pid.parse().expect("a pid")).expect("a pid");
                pidfd_open(pid, PidfdFlags::empty()).expect("it runs")
            })
            .collect();
        assert_eq!(children.len(), 2);
        let ends_within = |child, seconds| {
            let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
            poll(&mut [PollFd::new(child, PollFlags::IN)], Some(&limit)).expect("it can be watched") == 1
        };
        assert!(!ends_within(&children[0], 0) && !ends_within(&children[1], 0), "they run by themselves");
        agent.kill().expect("it is killed");
        agent.wait().expect("it ends");
        for child in &children {
            assert!(ends_within(child, 30), "what it started goes on");
        }
    }
}
