import { getSandbox, SessionAlreadyExistsError, SessionNotFoundError, ValidationFailedError } from "sandcrab";
import { describe, expect } from "vitest";
import { connection, freshId, rejection, test } from "../support/sandbox.js";

describe("S01 shell state", () => {
  test("S01 what one exec changes of the shell is there in the next", async ({ sandbox }) => {
    const session = await sandbox.createSession({ id: "state" });
    await session.exec(
      [
        "mkdir -p /workspace/deep && cd /workspace/deep",
        "export EXPORTED=e; PLAIN=p; ARRAY=(one 'two words')",
        'greet() { echo "hi $1"; }',
        "shopt -s expand_aliases extglob; alias ll='echo aliased'",
        "umask 027; set -o pipefail; trap 'echo trapped' USR1",
      ].join("\n"),
    );
    const { stdout, stderr } = await session.exec(
      [
        'pwd; echo "$EXPORTED $PLAIN ${ARRAY[1]} ${#ARRAY[@]}"; greet you',
        "ll; umask; set -o | grep pipefail | tr -s '\\t ' ' '; shopt -q extglob && echo extglob",
        "kill -USR1 $$; env | grep -c '^EXPORTED=e$'",
      ].join("\n"),
    );
    expect(stderr).toBe("");
    expect(stdout.split("\n")).toEqual([
      "/workspace/deep",
      "e p two words 2",
      "hi you",
      "aliased",
      "0027",
      "pipefail on",
      "extglob",
      "trapped",
      "1",
    ]);
  });

  test("S01 and in no other session; files are shared", async ({ sandbox }) => {
    const one = await sandbox.createSession({ id: "one" });
    const other = await sandbox.createSession({ id: "other" });
    await one.exec("cd /tmp; export SECRET=1; f() { :; }; umask 077; echo shared > /tmp/shared");
    const { stdout } = await other.exec('pwd; echo "[$SECRET]"; type f 2>/dev/null; umask; cat /tmp/shared');
    expect(stdout).toBe("/workspace\n[]\n0022\nshared");
    expect((await sandbox.exec("pwd")).stdout).toBe("/workspace");
  });

  test("S01 the cwd is never reset, and CDPATH is not set", async ({ sandbox }) => {
    await sandbox.exec("mkdir -p a/b && cd a");
    await sandbox.exec("cd b");
    expect((await sandbox.exec('echo "$PWD [${CDPATH-unset}]"')).stdout).toBe("/workspace/a/b [unset]");
  });
});

describe("S10 sessions by id", () => {
  test("S10 createSession has its own env and cwd, which is created", async ({ sandbox }) => {
    const session = await sandbox.createSession({
      id: "own",
      env: { A: "1", B: undefined },
      cwd: "/workspace/new/dir",
    });
    expect(session.id).toBe("own");
    expect((await session.exec('echo "$A ${B-unset} $PWD"')).stdout).toBe("1 unset /workspace/new/dir");
  });

  test("S10 defaults: cwd /workspace, an id of its own", async ({ sandbox }) => {
    const session = await sandbox.createSession();
    expect(session.id).toMatch(/^.+$/);
    expect(session.id).not.toBe("default");
    expect((await session.exec("pwd")).stdout).toBe("/workspace");
  });

  test("S10 an id that exists is refused", async ({ sandbox }) => {
    await sandbox.createSession({ id: "twice" });
    const error = await rejection(sandbox.createSession({ id: "twice" }));
    expect(error).toBeInstanceOf(SessionAlreadyExistsError);
    expect(error).toMatchObject({ code: "SESSION_ALREADY_EXISTS", httpStatus: 409, sessionId: "twice" });
  });

  test("S10 getSession gives a live session with its state, or one that its first command creates", async ({
    sandbox,
  }) => {
    const created = await sandbox.createSession({ id: "kept", env: { A: "1" } });
    await created.exec("cd /tmp; B=2");
    const again = await sandbox.getSession("kept");
    expect((await again.exec('echo "$PWD $A $B"')).stdout).toBe("/tmp 1 2");
    const unknown = await sandbox.getSession("never-made");
    expect(await unknown.exec("pwd")).toMatchObject({ stdout: "/workspace", sessionId: "never-made" });
    await expect(sandbox.getSession("a/b")).rejects.toThrow(ValidationFailedError);
  });

  test("S10 deleteSession frees the id; an unknown one and the default one are refused", async ({ sandbox }) => {
    const session = await sandbox.createSession({ id: "gone" });
    await session.exec("A=1");
    const deleted = await sandbox.deleteSession("gone");
    expect(deleted).toEqual({ success: true, sessionId: "gone", timestamp: expect.stringMatching(/^\d{4}-.+Z$/) });
    const error = await rejection(sandbox.deleteSession("gone"));
    expect(error).toBeInstanceOf(SessionNotFoundError);
    expect(error).toMatchObject({ httpStatus: 404, sessionId: "gone" });
    const anew = await sandbox.createSession({ id: "gone" });
    expect((await anew.exec('echo "[$A]"')).stdout).toBe("[]");
    await sandbox.exec("true");
    const refused = await rejection(sandbox.deleteSession("default"));
    expect(refused).toMatchObject({ httpStatus: expect.toSatisfy((status: number) => status >= 400 && status < 500) });
    expect((await sandbox.exec("echo alive")).stdout).toBe("alive");
  });

  test("listSessions tells each session as it stands", async ({ sandbox }) => {
    await sandbox.createSession({ id: "a", name: "the first" });
    const session = await sandbox.createSession({ id: "b" });
    await session.exec("cd /tmp");
    const sessions = await sandbox.listSessions();
    const named = sessions.filter(({ id }) => id !== "default");
    expect(named).toMatchObject([
      { id: "a", name: "the first", cwd: "/workspace", busy: false, waiting: 0 },
      { id: "b", cwd: "/tmp", busy: false, waiting: 0 },
    ]);
    expect(named[0]?.createdAt).toBeInstanceOf(Date);
    expect(Math.abs(Date.now() - Number(named[0]?.createdAt))).toBeLessThan(60_000);
  });

  test("X02 bad options of a session name their field and make no session", async ({ sandbox }) => {
    for (const [field, options] of [
      ["id", { id: "a/b" }],
      ["env", { env: { "A=B": "1" } }],
      ["commandTimeoutMs", { id: "x", commandTimeoutMs: 0 }],
      ["cwd", { id: "x", cwd: "a\0b" }],
    ] as const) {
      const error = await rejection(sandbox.createSession(options));
      expect(error, field).toBeInstanceOf(ValidationFailedError);
      expect((error as ValidationFailedError).message).toContain(field);
    }
    expect((await sandbox.listSessions()).filter(({ id }) => id !== "default")).toEqual([]);
  });
});

describe("S11 variables", () => {
  test("S11 a sandbox's variables reach every session from its next command, a session's own win", async ({
    sandbox,
  }) => {
    const early = await sandbox.createSession({ id: "early", env: { OWN: "session" } });
    await early.exec("true");
    await sandbox.setEnvVars({ SHARED: "yes", OWN: "sandbox" });
    const late = await sandbox.createSession({ id: "late" });
    expect((await early.exec('echo "$SHARED $OWN"')).stdout).toBe("yes session");
    expect((await late.exec('echo "$SHARED $OWN"')).stdout).toBe("yes sandbox");
    expect((await sandbox.exec("bash -c 'echo $SHARED'")).stdout).toBe("yes");
  });

  test("S11 undefined and null unset", async ({ sandbox }) => {
    await sandbox.setEnvVars({ A: "1", B: "2", C: "3" });
    await sandbox.exec("true");
    await sandbox.setEnvVars({ A: undefined, B: null, C: "" });
    expect((await sandbox.exec('echo "${A-unset} ${B-unset} [${C-unset}]"')).stdout).toBe("unset unset []");
  });

  test("S11 a session's setEnvVars is that session's alone", async ({ sandbox }) => {
    const one = await sandbox.createSession({ id: "one" });
    const two = await sandbox.createSession({ id: "two" });
    await one.setEnvVars({ MINE: "a b\nc" });
    expect((await one.exec('printf %s "$MINE"')).stdout).toBe("a b\nc");
    expect((await two.exec('echo "${MINE-unset}"')).stdout).toBe("unset");
    expect((await sandbox.exec('echo "${MINE-unset}"')).stdout).toBe("unset");
  });

  test("S11 a busy session is not waited for", async ({ sandbox }) => {
    const busy = await sandbox.createSession({ id: "busy" });
    const running = busy.exec("read -t 20 < <(mkfifo /tmp/go; cat /tmp/go); echo done");
    await expect.poll(async () => (await sandbox.exists("/tmp/go")).exists).toBe(true);
    await sandbox.setEnvVars({ LATER: "1" });
    await sandbox.exec("echo > /tmp/go");
    expect((await running).stdout).toBe("done");
    expect((await busy.exec("echo $LATER")).stdout).toBe("1");
  });

  test("X02 a bad variable names its field and sets none", async ({ sandbox }) => {
    const error = await rejection(sandbox.setEnvVars({ GOOD: "1", "B=D": "2" }));
    expect(error).toBeInstanceOf(ValidationFailedError);
    expect((error as ValidationFailedError).validationErrors[0]?.field).toContain("B=D");
    expect((await sandbox.exec('echo "${GOOD-unset}"')).stdout).toBe("unset");
  });
});

test("enableDefaultSession: false gives each exec a shell of its own", async () => {
  const sandbox = getSandbox(connection(), freshId(), { enableDefaultSession: false });
  try {
    await sandbox.exec("A=1; cd /tmp");
    const { stdout, sessionId } = await sandbox.exec('echo "${A-unset} $PWD"');
    expect({ stdout, sessionId }).toEqual({ stdout: "unset /workspace", sessionId: undefined });
    await sandbox.exec("A=1", { sessionId: "s" });
    expect((await sandbox.exec("echo $A", { sessionId: "s" })).stdout).toBe("1");
  } finally {
    await sandbox.destroy();
  }
});

test("S10 a session that only files, processes or code use is listed, and can be deleted", async ({ sandbox }) => {
  const ids = ["files", "processes", "code"];
  const [files, processes, code] = await Promise.all(ids.map((id) => sandbox.getSession(id)));
  await files?.writeFile("/tmp/a", "a");
  await processes?.startProcess("true");
  await code?.runCode("1", { language: "javascript" });
  expect((await sandbox.listSessions()).map(({ id }) => id).sort()).toEqual([...ids].sort());
  for (const id of ids) expect(await sandbox.deleteSession(id)).toMatchObject({ success: true, sessionId: id });
  expect(await sandbox.listSessions()).toEqual([]);
});
