//! PID 1's duty: orphans are reaped, and nobody's child is taken for one. In a process of its own, since reaping
//! orphans takes every child that the spawner does not know.

#[cfg(test)]
mod tests {
    use sandcrab_agent::spawn::{Exit, Identity, SpawnSpec, Spawner};
    use std::ffi::CString;
    use std::time::Duration;

    fn children_of_this_process() -> String {
        let pid = std::process::id();
        let mut all = String::new();
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).expect("/proc is mounted").flatten() {
            all += &std::fs::read_to_string(task.path().join("children")).expect("the kernel lists children");
        }
        all
    }

    #[tokio::test]
    async fn orphans_are_reaped_and_known_children_keep_their_status() {
        let me = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(me)).expect("orphans come here");
        let spawner = Spawner::new(Identity::default());
        let reaper = tokio::spawn({
            let spawner = spawner.clone();
            async move { spawner.reap_orphans().await.map(|_| ()) }
        });
        let mut children = Vec::new();
        for code in 0..60 {
            // Each leaves two orphans behind, one that ends at once and one a little later.
            let text = format!("(true & exec true) & (setsid sleep 0.05 & ) ; exit {code}");
            let args = ["sh", "-c", &text].map(|arg| CString::new(arg).expect("no NUL"));
            let child = spawner
                .spawn(&SpawnSpec {
                    program: c"/bin/sh",
                    args: &args,
                    env: &[c"PATH=/usr/bin:/bin".to_owned()],
                    cwd: None,
                    fds: &[],
                    cgroup: None,
                    subreaper: false,
                })
                .expect("sh starts");
            children.push((code, child));
        }
        for (code, child) in &children {
            let exit = tokio::time::timeout(Duration::from_secs(30), child.wait()).await;
            assert_eq!(exit.expect("it ends").expect("it can be waited for"), Exit::Code(*code));
        }
        let none_left = async {
            let mut child =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child()).expect("SIGCHLD");
            while !children_of_this_process().trim().is_empty() {
                // The signal that says so may have come before it was listened for.
                let _ = tokio::time::timeout(Duration::from_millis(50), child.recv()).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), none_left).await.expect("every orphan is reaped");
        assert!(!reaper.is_finished(), "the reaper goes on");
        reaper.abort();
    }
}
