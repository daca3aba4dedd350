import {
  CommandNotFoundError,
  CommandTimeoutError,
  FileExistsError,
  GitAuthenticationError,
  GitBranchNotFoundError,
  GitNetworkError,
  GitRepositoryNotFoundError,
  getSandbox,
  InvalidGitUrlError,
  NoSpaceError,
  ValidationFailedError,
} from "sandcrab";
import { describe, expect } from "vitest";
import { Cutter } from "../support/cutter.js";
import { asked, PASSWORD, serveGit } from "../support/git.js";
import { connection, freshId, rejection, test } from "../support/sandbox.js";

const HTTP = "http://127.0.0.1:8080";
const HTTPS = "https://localhost:8443";
const auth = { username: "me", password: PASSWORD };

describe("gitCheckout", () => {
  test("G01 S14 clones over http, https and git, from the session's variables and directory", async ({ sandbox }) => {
    await serveGit(sandbox);
    const plain = await sandbox.gitCheckout(`${HTTP}/open/r.git`);
    expect(plain).toEqual({
      success: true,
      repoUrl: `${HTTP}/open/r.git`,
      branch: "main",
      targetDir: "/workspace/r",
      timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
    });
    expect((await sandbox.exec("cd r && cat file && git log --format=%s && git status --porcelain")).stdout).toBe(
      "3\n3\n2\n1",
    );

    const session = await sandbox.createSession({ id: "s", cwd: "/workspace/deep/er" });
    expect(await rejection(session.gitCheckout(`${HTTPS}/open/r.git`))).toBeInstanceOf(GitNetworkError);
    await session.exec("export GIT_SSL_CAINFO=/srv/ca.pem");
    const tls = await session.gitCheckout(`${HTTPS}/private/r.git`, { auth, branch: "dev", depth: 1 });
    expect(tls).toMatchObject({ branch: "dev", targetDir: "/workspace/deep/er/r" });
    expect((await session.exec("git -C r log --format=%s")).stdout).toBe("2");

    const byGit = await sandbox.gitCheckout("git://127.0.0.1/r.git", { targetDir: "by-git", sessionId: "s" });
    expect(byGit.targetDir).toBe("/workspace/deep/er/by-git");
  });

  test("G01 credentials are in no file, argument, environment, list or event", async ({ sandbox }) => {
    await serveGit(sandbox);
    const url = `${HTTP}/gate/r.git`;
    const running = sandbox.gitCheckout(url, { auth });
    await asked(sandbox, "service=git-upload-pack me");
    // The bracket keeps grep from finding itself.
    const search = "grep -la 's3cret-pas[s]' /proc/[0-9]*/cmdline /proc/[0-9]*/environ";
    const control = await sandbox.exec(`PASS=s3cret-pass bash -c "${search}"`, { sessionId: "look" });
    expect(control.stdout).toMatch(/^\/proc\/\d+\/environ$/);
    expect((await sandbox.exec(search, { sessionId: "look" })).stdout).toBe("");
    expect((await sandbox.exec("grep -lz gate/r.git /proc/[0-9]*/cmdline", { sessionId: "look" })).stdout).not.toBe("");
    await sandbox.exec("printf '\\n\\n\\n\\n\\n\\n' > /tmp/in", { sessionId: "look" });
    await running;
    const inUrl = await sandbox.gitCheckout(`http://me:${PASSWORD}@127.0.0.1:8080/private/r.git`, { targetDir: "2" });
    expect(inUrl.repoUrl).toBe(`${HTTP}/private/r.git`);
    const error = (await rejection(
      sandbox.gitCheckout(`${HTTP}/echo/r.git`, { auth, targetDir: "3" }),
    )) as GitAuthenticationError;
    expect(error).toBeInstanceOf(GitAuthenticationError);
    expect(JSON.stringify(error)).toContain("you said me ***");
    expect(JSON.stringify(error) + error.stack).not.toContain(PASSWORD);
    expect(
      (await sandbox.exec(`grep -rla ${PASSWORD} / --exclude-dir={proc,sys,usr} --exclude=server.py`)).stdout,
    ).toBe("");
  });

  test("G01 X01 each failure has its class and leaves nothing behind", async ({ sandbox }) => {
    await serveGit(sandbox);
    const failed = (url: string, options = {}) =>
      rejection(sandbox.gitCheckout(url, { targetDir: "target", ...options })) as Promise<GitBranchNotFoundError>;
    expect(await failed(`${HTTP}/open/none.git`)).toBeInstanceOf(GitRepositoryNotFoundError);
    expect(await failed("git://127.0.0.1/none.git")).toBeInstanceOf(GitRepositoryNotFoundError);
    expect(await failed(`${HTTP}/private/r.git`)).toBeInstanceOf(GitAuthenticationError);
    expect(await failed(`${HTTP}/private/r.git`, { auth: { password: "no" } })).toBeInstanceOf(GitAuthenticationError);
    expect(await failed("https://github.com/user/repo.git")).toBeInstanceOf(GitNetworkError);
    expect(await failed("git@github.com:user/repo.git")).toBeInstanceOf(GitNetworkError);
    expect(await failed("http://127.0.0.1:9/r.git")).toBeInstanceOf(GitNetworkError);
    const branch = await failed(`${HTTP}/open/r.git`, { branch: "$(touch /tmp/evil)" });
    expect(branch).toBeInstanceOf(GitBranchNotFoundError);
    expect([branch.repository, branch.branch]).toEqual([`${HTTP}/open/r.git`, "$(touch /tmp/evil)"]);
    expect(await failed(`${HTTP}/open/r.git`, { depth: 0 })).toBeInstanceOf(ValidationFailedError);
    const late = await failed(`${HTTP}/slow/r.git`, { cloneTimeoutMs: 300 });
    expect(late).toBeInstanceOf(CommandTimeoutError);
    expect(late.message).toContain("timeout");
    expect((await sandbox.listFiles("/workspace")).files).toEqual([]);
    await sandbox.writeFile("target/kept", "kept");
    expect(await failed(`${HTTP}/open/r.git`)).toBeInstanceOf(FileExistsError);
    expect((await sandbox.readFile("target/kept")).content).toBe("kept");
    await sandbox.exec("export PATH=/nowhere", { sessionId: "bare" });
    expect(await failed(`${HTTP}/open/r.git`, { sessionId: "bare", targetDir: "new" })).toBeInstanceOf(
      CommandNotFoundError,
    );
    expect(await sandbox.exists("/tmp/evil")).toMatchObject({ exists: false });
  });

  test("B08 hostile URLs start nothing", async ({ sandbox }) => {
    for (const url of [
      "ext::sh -c 'touch /tmp/evil'",
      "--upload-pack=touch /tmp/evil",
      "ssh://-oProxyCommand=touch%20/tmp/evil/r",
      "-oProxyCommand=touch$IFS/tmp/evil:r",
      "file:///etc",
      "/workspace",
      "https://h/%0aHost:evil",
      "",
    ]) {
      expect(await rejection(sandbox.gitCheckout(url)), url).toBeInstanceOf(InvalidGitUrlError);
    }
    expect((await sandbox.exec("ls /tmp /workspace")).stdout).not.toContain("evil");
  });

  test("B08 hooks, submodules and .git in a hostile repository run nothing", async ({ sandbox }) => {
    await serveGit(sandbox);
    const made = await sandbox.exec(
      `set -e; export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@localhost GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@localhost
       git init -q --bare -b main /srv/git/hooks.git; cd /srv/git/hooks.git
       blob=$(printf '#!/bin/sh\\ntouch /tmp/evil\\n' | git hash-object -w --stdin)
       hooks=$(printf '100755 blob %s\\tpost-checkout\\n' $blob | git mktree)
       inside=$(printf '040000 tree %s\\thooks\\n' $hooks | git mktree)
       git update-ref refs/heads/main $(git commit-tree -m x $(printf '040000 tree %s\\t.git\\n' $inside | git mktree))
       git init -q -b main /tmp/v; cd /tmp/v
       printf '[submodule "s"]\\n\\tpath = s\\n\\turl = ext::sh -c touch%% /tmp/evil\\n\\tupdate = !touch /tmp/evil\\n' > .gitmodules
       ln -s .git dotgit; git add .; git update-index --add --cacheinfo 160000,$(printf '%040d' 1),s
       git commit -qm x; git clone -q --bare . /srv/git/tricks.git`,
      { sessionId: "maker" },
    );
    expect(made).toMatchObject({ exitCode: 0 });
    expect(await rejection(sandbox.gitCheckout(`${HTTP}/open/hooks.git`))).toMatchObject({
      code: "GIT_CHECKOUT_FAILED",
    });
    await sandbox.gitCheckout(`${HTTP}/open/tricks.git`);
    expect((await sandbox.exec("ls /workspace; ls /tmp/evil")).stdout).toBe("tricks");
    // Positive control: a hook runs where the sandbox's own user put it.
    await sandbox.writeFile("/tmp/t/hooks/post-checkout", "#!/bin/sh\ntouch /tmp/evil\n", { mode: 0o755 });
    await sandbox.exec("git config --global init.templateDir /tmp/t");
    await sandbox.gitCheckout(`${HTTP}/open/r.git`);
    expect(await sandbox.exists("/tmp/evil")).toMatchObject({ exists: true });
  });

  test("S12 a lost connection ends nothing, an abort everything", async ({ sandbox }) => {
    await serveGit(sandbox);
    await using cutter = await Cutter.start(connection().url);
    const far = getSandbox(connection(cutter.url), sandbox.id);
    const running = far.gitCheckout(`${HTTP}/gate/r.git`, { auth });
    await asked(sandbox, "gate.*service=git-upload-pack me");
    cutter.cutAll();
    await sandbox.exec("printf '\\n\\n\\n\\n\\n\\n' > /tmp/in", { sessionId: "look" });
    expect(await running).toMatchObject({ targetDir: "/workspace/r" });
    const first = "grep -c 'GET /gate.* me' /tmp/requests";
    expect((await sandbox.exec(first, { sessionId: "look" })).stdout).toBe("1");

    const controller = new AbortController();
    const slow = sandbox.gitCheckout(`${HTTP}/slow/r.git`, { targetDir: "s", signal: controller.signal });
    await asked(sandbox, "/slow/r.git");
    expect((await sandbox.exists("s/.git")).exists).toBe(true);
    const reason = new Error("enough");
    controller.abort(reason);
    expect(await rejection(slow)).toBe(reason);
    const left = "grep -lz slow/[r].git /proc/[0-9]*/cmdline; ls /workspace";
    expect((await sandbox.exec(left, { sessionId: "look" })).stdout).toBe("r");
  });

  test("G01 a full disk is told and nothing of the clone stays", async () => {
    const sandbox = getSandbox(connection(), freshId(), { limits: { disk: "24m" } });
    try {
      await serveGit(sandbox);
      const big = await sandbox.exec(
        `set -e; git init -q -b main /dev/shm/w; cd /dev/shm/w; head -c 30000000 /dev/urandom > big; git add big
         git -c user.name=a -c user.email=a@localhost commit -qm big; ln -s /dev/shm/w/.git /srv/git/big.git`,
        { sessionId: "maker" },
      );
      expect(big).toMatchObject({ exitCode: 0 });
      const error = (await rejection(sandbox.gitCheckout(`${HTTP}/open/big.git`))) as NoSpaceError;
      expect(error, error.message).toBeInstanceOf(NoSpaceError);
      expect(error.httpStatus).toBe(507);
      expect((await sandbox.listFiles("/workspace")).files).toEqual([]);
      // The room is there again.
      await sandbox.gitCheckout(`${HTTP}/open/r.git`);
    } finally {
      await sandbox.destroy();
    }
  });
});
