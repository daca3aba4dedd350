import { readFile } from "node:fs/promises";
import type { Sandbox } from "sandcrab";

/** The password of user `me` on the git host. */
export const PASSWORD = "s3cret-pass";

/**
 * Serves a repository `r` with the branches `main` and `dev` on the sandbox's own loopback: by HTTP on port 8080, by HTTPS
 * on 8443 with a CA in /srv/ca.pem, and by git's own protocol. Its requests are written to /tmp/requests.
 */
export async function serveGit(sandbox: Sandbox): Promise<void> {
  const script = await readFile(new URL("../../../../tests/git/server.py", import.meta.url), "utf8");
  await sandbox.writeFile("/tmp/server.py", script);
  const { exitCode, stdout, stderr } = await sandbox.exec(
    `set -e; git init -q -b main /tmp/w; cd /tmp/w
     for n in 1 2 3; do echo $n > file; git add file; git -c user.name=a -c user.email=a@localhost commit -qm $n; done
     git branch dev HEAD~1; mkdir /srv/git; git clone -q --bare . /srv/git/r.git; rm -rf /tmp/w; cd /
     mkfifo /tmp/in /tmp/idle /tmp/plain /tmp/tls; exec 5<>/tmp/in 8<>/tmp/idle
     python3 /tmp/server.py /srv/git --port 8080 </tmp/in >/tmp/plain 2>/tmp/errors &
     exec 6</tmp/plain; read -r line <&6; echo $line; cat <&6 >/tmp/requests &
     python3 /tmp/server.py /srv/git --port 8443 --tls </tmp/idle >/tmp/tls 2>>/tmp/errors &
     exec 7</tmp/tls; read -r word file <&7; cp $file /srv/ca.pem; read -r line <&7; echo $line; cat <&7 >/dev/null &`,
    { sessionId: "host" },
  );
  if (exitCode !== 0 || stdout !== "listening 8080\nlistening 8443") {
    throw new Error(`the git host did not start: ${stdout} ${stderr}`);
  }
  const daemon = await sandbox.startProcess(
    "git daemon --base-path=/srv/git --export-all --listen=127.0.0.1 --reuseaddr",
    {
      sessionId: "host",
    },
  );
  await daemon.waitForPort(9418, { mode: "tcp" });
}

/** Waits until the host has had a request for this. */
export async function asked(sandbox: Sandbox, what: string): Promise<void> {
  const command = `tail -n +1 -f /tmp/requests | grep -m1 -- '${what}'`;
  await sandbox.exec(command, { sessionId: "watcher", timeout: 30_000 });
}
