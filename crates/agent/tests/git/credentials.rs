//! Where a password is, and above all where it is not (contract G01).

use crate::common::Sandbox;
use crate::host::{Host, PASSWORD, sh};
use serde_json::{Value, json};
use std::path::Path;

/// How the password could be written down.
fn forms() -> [String; 3] {
    // base64 of "me:PASSWORD", and as in a URL.
    let basic = sh(Path::new("/"), &format!("printf %s 'me:{PASSWORD}' | base64 -w0"));
    [PASSWORD.to_owned(), basic, "s3cret%2Fp%40ss%20w%C3%B6rd".to_owned()]
}

#[track_caller]
fn assert_clean(what: &str, content: &[u8]) {
    for form in forms() {
        let found = content.windows(form.len()).any(|part| part == form.as_bytes());
        assert!(!found, "{what} holds {form:?}");
    }
}

/// Every file below a directory.
fn files(directory: &Path, take: &mut impl FnMut(&Path, &[u8])) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files(&entry.path(), take),
            kind if kind.is_file() => take(&entry.path(), &std::fs::read(entry.path()).unwrap()),
            _ => {}
        }
    }
}

/// Arguments and environment of every process whose arguments mention this port, and how many there are.
fn processes(port: &str) -> (usize, Vec<u8>) {
    let (mut count, mut all) = (0, Vec::new());
    for entry in std::fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        // A process may end meanwhile.
        let Ok(line) = std::fs::read(path.join("cmdline")) else { continue };
        if line.windows(port.len()).any(|part| part == port.as_bytes()) {
            count += 1;
            all.extend(line);
            all.extend(std::fs::read(path.join("environ")).unwrap_or_default());
        }
    }
    (count, all)
}

#[tokio::test]
async fn g01_a_password_is_nowhere_but_in_gits_hands() {
    let (sandbox, mut host) = (Sandbox::start(), Host::http());
    let home = sandbox.dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    // What worked is given to the user's helpers to keep; not what was lent.
    sandbox
        .exec("a", &format!("export HOME={}; git config --global credential.helper store", home.display()))
        .await;
    let request = json!({ "repoUrl": host.url("gate/r"), "sessionId": "a", "execId": "gated",
        "auth": { "username": "me", "password": PASSWORD } });
    let running = sandbox.checkout(request);
    let looking = async {
        host.asked("info/refs?service=git-upload-pack me").await;
        let (count, seen) = processes(host.origin().rsplit(':').next().unwrap());
        assert!(count >= 2, "git and its http helper were not found");
        assert_clean("arguments and environment", &seen);
        let (_, listed) = sandbox.call("GET", "/execs", None).await;
        assert_eq!(listed["execs"][0]["execId"], "gated");
        assert_clean("the list of commands", listed.to_string().as_bytes());
        host.open_gate(9);
    };
    let (done, ()) = tokio::join!(running, looking);
    assert_clean("the result", done.to_string().as_bytes());
    let mut seen = 0;
    files(sandbox.dir.path(), &mut |path, content| {
        seen += 1;
        assert_clean(&path.display().to_string(), content);
    });
    assert!(seen > 10, "the clone was not looked at");
    let config = std::fs::read_to_string(sandbox.workspace().join("r/.git/config")).unwrap();
    assert!(
        config.contains(&host.url("gate/r")) && !config.contains("me@") && !config.contains("credential")
    );
    assert!(!home.join(".git-credentials").exists());
    let (_, result) = sandbox.call("GET", "/execs/gated/result", None).await;
    assert_clean("the command's output", result.to_string().as_bytes());
    // Positive control: the user's own helper does keep what the user's own clone gave.
    let own = format!(
        "git clone -q {} own",
        host.url("private/r").replace("://", &format!("://me:{}@", forms()[2]))
    );
    assert_eq!(sandbox.exec("a", &own).await["exitCode"], 0);
    assert!(std::fs::read_to_string(home.join(".git-credentials")).unwrap().contains("me:"));
}

#[tokio::test]
async fn g01_credentials_come_from_auth_or_from_the_url() {
    let (sandbox, host) = (Sandbox::start(), Host::http());
    let url = host.url("private/r");
    let with = |userinfo: &str| url.replace("://", &format!("://{userinfo}@"));
    let in_url = with(&format!("me:{}", forms()[2]));
    let done = sandbox.checkout(json!({ "repoUrl": in_url, "targetDir": "1" })).await;
    assert_eq!(done["repoUrl"], json!(url), "it comes back without them");
    let config = std::fs::read_to_string(sandbox.workspace().join("1/.git/config")).unwrap();
    assert!(config.contains(&format!("url = {url}\n")), "{config}");
    // The caller's own win; a user name alone stands beside the password given.
    let auth = |user: Option<&str>, password: &str| match user {
        Some(user) => json!({ "username": user, "password": password }),
        None => json!({ "password": password }),
    };
    let request = json!({ "repoUrl": with("me:old"), "targetDir": "2", "auth": auth(None, PASSWORD) });
    sandbox.checkout(request).await;
    let request =
        json!({ "repoUrl": with("other:old"), "targetDir": "3", "auth": auth(Some("me"), PASSWORD) });
    sandbox.checkout(request).await;
    // A partial clone fetches what it checks out in a second step, with the same credentials.
    let request = json!({ "repoUrl": url, "targetDir": "4", "filter": "blob:none", "auth": auth(Some("me"), PASSWORD) });
    sandbox.checkout(request).await;
    assert!(sandbox.workspace().join("4/file").exists());
    // Without any, and with wrong ones.
    for request in [
        json!({ "repoUrl": url }),
        json!({ "repoUrl": with("me") }),
        json!({ "repoUrl": url, "auth": auth(Some("me"), "wrong") }),
        json!({ "repoUrl": url, "auth": auth(Some("you"), PASSWORD) }),
    ] {
        let error = sandbox.refused("GIT_AUTH_FAILED", request).await;
        assert_eq!(error["httpStatus"], 401);
        assert_eq!(error["context"]["repository"], json!(url));
    }
    assert_eq!(sandbox.names(), ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn g01_a_host_that_repeats_the_password_does_not_get_it_written_down() {
    let (sandbox, host) = (Sandbox::start(), Host::http());
    let auth = json!({ "username": "me", "password": PASSWORD });
    let request = json!({ "repoUrl": host.url("echo/r"), "auth": auth, "execId": "told" });
    let error = sandbox.refused("GIT_AUTH_FAILED", request).await;
    assert_clean("the error", error.to_string().as_bytes());
    // Positive control: the host did repeat it.
    assert!(
        error["context"]["stderr"].as_str().unwrap().contains("remote: you said me *** Basic ***"),
        "{error}"
    );
    let mut events = sandbox.resume("told", "0-0").await;
    let mut all = String::new();
    while let Some((_, event)) = events.next().await {
        all += &event.to_string();
    }
    assert!(all.contains("you said me ***"), "{all}");
    assert_clean("the command's stream", all.as_bytes());
}

#[tokio::test]
async fn g01_another_host_does_not_get_the_password() {
    let mut other = Host::http();
    let (sandbox, host) = (Sandbox::start(), Host::moved_to(&format!("{}/private", other.origin())));
    let auth = |password: &str| json!({ "username": "me", "password": password });
    let request = json!({ "repoUrl": host.url("moved/r"), "auth": auth(PASSWORD) });
    sandbox.refused("GIT_AUTH_FAILED", request).await;
    let told = other.requests().await;
    assert!(!told.is_empty() && told.iter().all(|line| line.ends_with(" -")), "{told:?}");
    // Positive control: that host would have taken it.
    sandbox.checkout(json!({ "repoUrl": other.url("private/r"), "auth": auth(PASSWORD) })).await;
    let control: Vec<Value> = other.requests().await.into_iter().map(Value::from).collect();
    assert!(control.iter().any(|line| line.as_str().unwrap().ends_with(" me")));
}
