//! The host image from inside: does what people do first in a sandbox work?
#![expect(clippy::tests_outside_test_module, reason = "a test program is all tests")]
#![expect(clippy::disallowed_methods, reason = "one test compares with a command of the host")]

#[expect(dead_code, reason = "shared with test programs that use the rest of it")]
mod common;

use std::path::Path;

use common::{Home, ROOT, Ran, USER, chain, spec};
use sandcrab_runtime::image::Image;
use sandcrab_runtime::image::host::{self, HostOptions};
use sandcrab_runtime::{Driver, InstanceId, SandboxSpec};

/// A sandbox of the host image.
struct Inside {
    home: Home,
    id: InstanceId,
}

/// Kept between runs, as a server keeps it.
fn image() -> Image {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("host-image");
    host::ensure(&dir, &HostOptions::default()).expect("the host image")
}

impl Inside {
    async fn new(name: &str) -> Self {
        let home = Home::new();
        home.driver.add_image("host", image());
        let id = InstanceId::random();
        let spec = SandboxSpec { image: "host".into(), ..spec(name) };
        home.driver.create(&id, &spec).await.unwrap_or_else(|error| panic!("create: {}", chain(&error)));
        Self { home, id }
    }

    async fn run(&self, script: &str) -> Ran {
        self.home.run(&self.id, ROOT, script).await
    }

    /// What a script prints that must succeed.
    async fn out(&self, script: &str) -> String {
        let ran = self.run(script).await;
        assert_eq!(ran.code, Some(0), "{script}\n{}\n{}", ran.stdout, ran.stderr);
        ran.stdout.trim_end().to_owned()
    }

    async fn end(self) {
        self.home.destroy(&self.id).await;
    }
}

#[tokio::test]
async fn programs_run() {
    let inside = Inside::new("programs").await;
    for (script, expected) in [
        ("python -c 'print(6 * 7)'", "42"),
        ("python3 -c 'import sys; print(sys.executable)'", "/usr/bin/python3"),
        ("pip --version | cut -d' ' -f1", "pip"),
        ("node -p '6 * 7'", "42"),
        ("npm --version | grep -c '^[0-9]'", "1"),
        ("git --version | cut -d' ' -f1,2", "git version"),
        ("echo a b | awk '{ print $2 }'", "b"),
        ("perl -e 'print 6 * 7'", "42"),
        ("whoami", "root"),
        ("su nobody -s /bin/sh -c whoami", "nobody"),
        ("getent services https | tr -s ' '", "https 443/tcp"),
        ("getent hosts localhost | tr -s ' '", "::1 localhost ip6-localhost ip6-loopback"),
        ("locale | grep ^LC_CTYPE", "LC_CTYPE=\"C.UTF-8\""),
        ("python -c 'print(\"h\\u00e9\")'", "hé"),
        ("stat -c %a /tmp /var/tmp /root /usr", "1777\n1777\n700\n755"),
    ] {
        assert_eq!(inside.out(script).await, expected, "{script}");
    }
    inside.end().await;
}

#[tokio::test]
async fn a_program_is_compiled_and_run() {
    let inside = Inside::new("compiler").await;
    let source = "#include <stdio.h>\nint main(void) { puts(\"hello\"); return 0; }";
    let script = format!("cat > a.c <<'END'\n{source}\nEND\ncc a.c -o a && ./a");
    assert_eq!(inside.out(&script).await, "hello");
    inside.end().await;
}

#[tokio::test]
async fn certificates_are_found() {
    let inside = Inside::new("certificates").await;
    let count = "import ssl; print(len(ssl.create_default_context().get_ca_certs()) > 50)";
    assert_eq!(inside.out(&format!("python -c '{count}'")).await, "True");
    let count = inside.out("grep -c 'BEGIN CERT' /etc/ssl/certs/ca-certificates.crt").await;
    assert!(count.parse::<u32>().expect("a count") > 50);
    let broken = inside.out("find /etc/ssl/certs -xtype l | wc -l").await;
    assert_eq!(broken, "0");
    inside.end().await;
}

/// Writes a wheel of one module into the working directory.
const WHEEL: &str = r#"
import zipfile
name, info = "crabtest-1.0-py3-none-any.whl", "crabtest-1.0.dist-info"
with zipfile.ZipFile(name, "w") as wheel:
    wheel.writestr("crabtest.py", "def claws():\n    return 2\n")
    wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\nName: crabtest\nVersion: 1.0\n")
    wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "/RECORD", "crabtest.py,,\n" + info + "/METADATA,,\n" + info + "/WHEEL,,\n" + info + "/RECORD,,\n")
"#;

#[tokio::test]
async fn the_locale_is_one_file() {
    let inside = Inside::new("locale").await;
    assert_eq!(inside.out("locale -a | grep -x C.utf8; text=aé€; echo ${#text}").await, "C.utf8\n3");
    let opened = inside.out("cat /proc/self/maps | grep -o '/usr/lib/locale/.*' | sort -u").await;
    assert_eq!(opened, "/usr/lib/locale/locale-archive");
    inside.end().await;
}

#[tokio::test]
async fn pip_installs_for_the_system_and_in_a_venv() {
    let inside = Inside::new("pip").await;
    inside.out(&format!("cat > w.py <<'END'{WHEEL}END\npython w.py")).await;
    let install = "pip install --no-index --disable-pip-version-check ./crabtest-1.0-py3-none-any.whl";
    let ran = inside.run(install).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stderr, "", "no warning about root or the system's packages");
    assert_eq!(inside.out("python -c 'import crabtest; print(crabtest.claws())'").await, "2");
    inside.out("pip uninstall -y crabtest").await;
    let venv = format!("python -m venv v && v/bin/{install} && v/bin/python -c 'import crabtest' && echo ok");
    assert!(inside.out(&venv).await.ends_with("ok"));
    inside.end().await;
}

#[tokio::test]
async fn npm_installs_for_the_system() {
    let inside = Inside::new("npm").await;
    let package = r#"{"name":"crabtest","version":"1.0.0","bin":{"crabtest":"main.js"}}"#;
    let script = format!(
        "mkdir p && cd p && echo '{package}' > package.json && \
         printf '#!/usr/bin/env node\\nconsole.log(\"claws\")\\n' > main.js && \
         npm pack --silent && npm install --global --offline --silent ./crabtest-1.0.0.tgz && crabtest"
    );
    assert!(inside.out(&script).await.ends_with("\nclaws"));
    inside.end().await;
}

#[tokio::test]
async fn apt_installs_a_package_and_removes_it() {
    let inside = Inside::new("apt").await;
    let control = "Package: crabtest\\nVersion: 1\\nArchitecture: all\\nMaintainer: T <t@example.org>\\n\
                   Description: test\\n";
    let script = format!(
        "mkdir -p p/DEBIAN p/usr/bin p/etc/crabtest && printf '{control}' > p/DEBIAN/control && \
         printf '#!/bin/sh\\necho claws\\n' > p/usr/bin/crabtest && chmod 755 p/usr/bin/crabtest && \
         echo x > p/etc/crabtest/conf && dpkg-deb --build --root-owner-group p crabtest.deb && \
         apt-get install -y ./crabtest.deb && crabtest"
    );
    assert!(inside.out(&script).await.ends_with("\nclaws"));
    assert_eq!(inside.out("dpkg --audit; dpkg-query -W crabtest").await, "crabtest\t1");
    inside.out("apt-get check && apt-get purge -y crabtest").await;
    assert_eq!(inside.run("crabtest").await.code, Some(127));
    inside.end().await;
}

#[tokio::test]
async fn no_link_dangles_that_does_not_dangle_on_the_host() {
    let inside = Inside::new("links").await;
    let dangling = inside.out("find / /usr -xdev -path /.sandcrab -prune -o -xtype l -print").await;
    let alive: Vec<&str> = dangling.lines().filter(|link| Path::new(link).exists()).collect();
    assert!(alive.is_empty(), "{alive:?}");
    // The links that everything hangs on are there at all.
    for link in ["/bin/sh", "/usr/bin/awk", "/usr/bin/cc", "/etc/os-release", "/etc/localtime"] {
        inside.out(&format!("test -e {link}")).await;
    }
    inside.end().await;
}

#[tokio::test]
async fn the_clock_is_the_hosts() {
    let inside = Inside::new("clock").await;
    let zone = "date -d '2026-01-01 00:00 UTC' '+%Z %H'";
    let here = std::process::Command::new("sh").args(["-c", zone]).env_remove("TZ").output();
    let here = String::from_utf8(here.expect("date").stdout).expect("a zone");
    assert_eq!(inside.out(zone).await, here.trim_end());
    inside.end().await;
}

#[tokio::test]
async fn the_host_stays_outside() {
    let inside = Inside::new("outside").await;
    for dir in ["/home", "/opt", "/srv", "/mnt", "/media", "/usr/src", "/usr/local/etc", "/etc/ssl/private"] {
        assert_eq!(inside.out(&format!("ls -A {dir}")).await, "", "{dir}");
    }
    for path in
        ["/etc/gitconfig", "/etc/npmrc", "/etc/apt/auth.conf", "/root/.ssh", "/root/.cargo", "/etc/ssh"]
    {
        assert_eq!(inside.run(&format!("test -e {path}")).await.code, Some(1), "{path}");
    }
    // Nobody inside has a password, and nobody of the host's people is known.
    assert_eq!(inside.out("cut -d: -f2 /etc/shadow | sort -u").await, "*");
    assert_eq!(inside.out("awk -F: '$3 >= 1000 && $3 != 65534' /etc/passwd").await, "");
    // As the sandbox's root, to whom files of the host's root belong.
    let private = inside.out("find /usr -xdev -type f ! -perm -o+r -newermt 1970-01-02 | head").await;
    assert_eq!(private, "");
    let ran = inside.home.run(&inside.id, USER, "cat /etc/shadow; touch /usr/bin/x; echo $HOME").await;
    assert_eq!(ran.stdout.lines().next(), Some("/root"), "{ran:?}");
    assert_eq!(ran.stderr.matches("Permission denied").count(), 2, "{ran:?}");
    inside.end().await;
}

#[tokio::test]
async fn writing_to_usr_stays_in_the_sandbox() {
    let inside = Inside::new("writing").await;
    let hash = || {
        let file = std::fs::read("/usr/bin/env").expect("the host's env");
        (file.len(), std::fs::metadata("/usr/bin/env").expect("the host's env").modified().expect("a time"))
    };
    let before = hash();
    inside
        .out("echo changed > /usr/bin/env && rm /usr/bin/cc && mkdir /usr/share/new && mv /usr/share/doc /usr/share/x")
        .await;
    assert_eq!(inside.out("cat /usr/bin/env").await, "changed");
    assert_eq!(hash(), before);
    assert!(Path::new("/usr/bin/cc").exists() && Path::new("/usr/share/doc").exists());
    let other = Inside::new("other").await;
    assert_eq!(other.run("test -e /usr/share/new").await.code, Some(1));
    inside.end().await;
    other.end().await;
}

#[tokio::test]
async fn images_that_nothing_uses_are_removed_at_the_next_start() {
    let home = Home::new();
    let images = home.dir.path().join("data/images/host");
    for key in ["host-used", "host-former"] {
        std::fs::create_dir_all(images.join(key)).expect("an image");
    }
    home.driver.add_image("former", Image { key: "host-used".into(), ..image() });
    let id = InstanceId::random();
    let spec = SandboxSpec { image: "former".into(), ..spec("former") };
    home.driver.create(&id, &spec).await.unwrap_or_else(|error| panic!("create: {}", chain(&error)));
    home.driver.tidy().await.expect("tidied");
    assert!(images.join("host-used").exists() && !images.join("host-former").exists());
    home.destroy(&id).await;
    home.driver.tidy().await.expect("tidied");
    assert!(!images.join("host-used").exists());
}
