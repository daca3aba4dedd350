import {
  CommandTimeoutError,
  getSandbox,
  InvalidCommandError,
  isExecResult,
  ResourceBusyError,
  SessionDestroyedError,
  ValidationFailedError,
} from "sandcrab";
import { describe, expect } from "vitest";
import { connection, rejection, test } from "../support/sandbox.js";

test("S03 a result has every documented field", async ({ sandbox }) => {
  const before = Date.now();
  const result = await sandbox.exec("echo out; echo err >&2; exit_code() { return 3; }; exit_code");
  expect(result).toMatchObject({
    success: false,
    exitCode: 3,
    stdout: "out",
    stderr: "err",
    command: "echo out; echo err >&2; exit_code() { return 3; }; exit_code",
    sessionId: "default",
    encoding: "utf8",
  });
  expect(isExecResult(result)).toBe(true);
  expect(result.duration).toBeGreaterThan(0);
  expect(result.duration).toBeLessThan(10_000);
  expect(result.timestamp).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  expect(Math.abs(Date.parse(result.timestamp) - before)).toBeLessThan(30_000);
});

test("S03 the exit code is the shell's own, 128+n for a signal", async ({ sandbox }) => {
  for (const [command, exitCode] of [
    ["true", 0],
    ["false", 1],
    ["(exit 42)", 42],
    ["no-such-program-at-all", 127],
    ["/etc/passwd", 126],
    ["bash -c 'kill -TERM $$'", 143],
    ["bash -c 'kill -9 $$'", 137],
  ] as const) {
    expect(await sandbox.exec(command), command).toMatchObject({ exitCode, success: exitCode === 0 });
  }
});

describe("S02 output", () => {
  test("S02 stdout and stderr come apart and byte for byte; one final newline is dropped unless asked", async ({
    sandbox,
  }) => {
    const command = "printf 'a\\r\\n\\tb\\n\\n'; printf '\\x1b[31me\\n' >&2; printf end";
    expect(await sandbox.exec("printf 'x\\n\\n'; echo e >&2")).toMatchObject({ stdout: "x\n", stderr: "e" });
    expect(await sandbox.exec("printf x")).toMatchObject({ stdout: "x", stderr: "" });
    const exact = await sandbox.exec(command, { stripFinalNewline: false });
    expect(exact).toMatchObject({ stdout: "a\r\n\tb\n\nend", stderr: "\u001b[31me\n" });
    expect(exact).not.toHaveProperty("invalidUtf8");
  });

  test("S02 bytes that are no UTF-8 are replaced and said so; base64 gives them", async ({ sandbox }) => {
    const command = "printf '\\xff\\xfeok\\n'";
    expect(await sandbox.exec(command)).toMatchObject({
      invalidUtf8: true,
      stdout: "\ufffd\ufffdok",
      encoding: "utf8",
    });
    const { stdout, encoding } = await sandbox.exec(command, { encoding: "base64" });
    expect({ encoding, bytes: Buffer.from(stdout, "base64") }).toEqual({
      encoding: "base64",
      bytes: Buffer.from([0xff, 0xfe, 0x6f, 0x6b, 0x0a]),
    });
  });

  test("S02 a megabyte of every byte comes back as it was", async ({ sandbox }) => {
    const bytes = Buffer.from(Uint8Array.from({ length: 1 << 20 }, (_, at) => (at * 7 + (at >> 8)) & 255));
    await sandbox.writeFile("/tmp/bytes", bytes);
    const { stdout } = await sandbox.exec("cat /tmp/bytes", { encoding: "base64" });
    expect(Buffer.from(stdout, "base64").equals(bytes)).toBe(true);
  });
});

describe("S05 the end of a shell is not the end of its session", () => {
  test("S05 exit ends the command with its code; the session goes on with its state", async ({ sandbox }) => {
    await sandbox.exec("cd /tmp; A=1; f() { echo f; }");
    expect(await sandbox.exec("B=2; exit 7")).toMatchObject({ exitCode: 7, shellRestarted: true });
    expect((await sandbox.exec('echo "$PWD $A $B"; f')).stdout).toBe("/tmp 1 2\nf");
  });

  test("S05 a killed shell has 137 and the state of the last completed command", async ({ sandbox }) => {
    await sandbox.exec("A=kept");
    expect(await sandbox.exec("A=lost; kill -9 $$")).toMatchObject({ exitCode: 137, shellRestarted: true });
    const next = await sandbox.exec("echo $A");
    expect(next).toMatchObject({ stdout: "kept", exitCode: 0 });
    expect(next).not.toHaveProperty("shellRestarted");
  });

  test("S05 set -e ends its command and is not carried on", async ({ sandbox }) => {
    expect(await sandbox.exec("set -e; false; echo not-reached")).toMatchObject({ exitCode: 1, stdout: "" });
    expect((await sandbox.exec("false; echo reached")).stdout).toBe("reached");
  });
});

describe("S06 timeout", () => {
  test("S06 rejects with what is known; the tree is dead, the session usable with its state", async ({ sandbox }) => {
    await sandbox.exec("KEPT=1; cd /tmp");
    const command = "echo started; echo complaint >&2; (setsid sleep 30 &) ; sleep 30; touch /tmp/evil";
    const begin = Date.now();
    const error = await rejection(sandbox.exec(command, { timeout: 300 }));
    expect(Date.now() - begin).toBeLessThan(10_000);
    expect(error).toBeInstanceOf(CommandTimeoutError);
    expect(error).toMatchObject({
      name: "CommandTimeoutError",
      code: "COMMAND_TIMEOUT",
      httpStatus: 408,
      operation: "exec",
      context: { command, timeout: 300, stdout: "started\n", stderr: "complaint\n", exitCode: 124 },
    });
    expect((error as Error).message.toLowerCase()).toContain("timeout");
    const after = await sandbox.exec("echo $KEPT $PWD; pgrep -x sleep | wc -l; ls /tmp/evil 2>/dev/null");
    expect(after.stdout).toBe("1 /tmp\n0");
  });

  test("S06 without a default session the end of the time is a result, with all of the output", async ({ sandbox }) => {
    const alone = getSandbox(connection(), sandbox.id, { enableDefaultSession: false });
    const late = await alone.exec("echo on; echo x >&2; sleep 30", { timeout: 200 });
    expect(late).toMatchObject({ success: false, exitCode: 124, stdout: "on", encoding: "utf8" });
    expect(late.stderr).toMatch(/^x\n.*timed out/);
    const long = await alone.exec("head -c 300000 /dev/zero | tr '\\0' a; sleep 30", { timeout: 400 });
    expect([long.exitCode, long.stdout.length]).toEqual([124, 300_000]);
    const raw = await alone.exec("printf '\\377'; sleep 30", { timeout: 200, encoding: "base64" });
    expect([raw.encoding, raw.stdout, atob(raw.stderr)]).toEqual([
      "base64",
      "/w==",
      "Command timed out after 200 ms\n",
    ]);
    let seen = "";
    const streamed = await alone.exec("echo on; sleep 30", { timeout: 200, onOutput: (_, data) => (seen += data) });
    expect([streamed.exitCode, streamed.stdout, seen]).toEqual([124, "on", "on\n"]);
  });

  test("S06 a shell that spins and ignores signals dies at its deadline too", async ({ sandbox }) => {
    const error = await rejection(
      sandbox.exec("trap '' INT TERM; while :; do :; done; touch /tmp/evil", { timeout: 200 }),
    );
    expect(error).toBeInstanceOf(CommandTimeoutError);
    expect((await sandbox.exec("ls /tmp/evil; echo usable")).stdout).toBe("usable");
  });

  test("S06 commandTimeoutMs of a session is the timeout of its commands that name none", async ({ sandbox }) => {
    const session = await sandbox.createSession({ commandTimeoutMs: 200 });
    const error = await rejection(session.exec("sleep 30"));
    expect(error).toMatchObject({ code: "COMMAND_TIMEOUT", context: { timeout: 200 } });
    expect((await session.exec("sleep 0.4; echo longer", { timeout: 20_000 })).stdout).toBe("longer");
  });
});

test("S07 a background job neither holds the exec nor writes into another's result", async ({ sandbox }) => {
  const begin = Date.now();
  await sandbox.exec("mkfifo /tmp/go /tmp/done; (read < /tmp/go; echo late; echo > /tmp/done) &");
  expect(Date.now() - begin).toBeLessThan(5000);
  const { stdout } = await sandbox.exec("echo > /tmp/go; read < /tmp/done; echo mine");
  expect(stdout).toBe("mine");
});

describe("S08 order", () => {
  test("S08 one session's commands run one at a time in order, other sessions beside them", async ({ sandbox }) => {
    const queue = await sandbox.createSession({ id: "queue" });
    const first = queue.exec("mkfifo /tmp/gate; read < /tmp/gate; echo 1 >> /tmp/order");
    await expect.poll(async () => (await sandbox.exists("/tmp/gate")).exists).toBe(true);
    const rest: Promise<unknown>[] = [];
    for (const n of [2, 3, 4]) {
      rest.push(queue.exec(`echo ${n} >> /tmp/order`));
      await expect
        .poll(async () => (await sandbox.listSessions()).find(({ id }) => id === "queue")?.waiting)
        .toBe(n - 1);
    }
    // Neither another session nor a read of state waits behind them.
    expect(await sandbox.exec("echo beside; echo > /tmp/gate", { sessionId: "other" })).toMatchObject({
      stdout: "beside",
    });
    await Promise.all([first, ...rest]);
    expect((await queue.exec("cat /tmp/order")).stdout).toBe("1\n2\n3\n4");
  });

  test("S08 queueTimeout bounds the wait, timeout starts with the command", async ({ sandbox }) => {
    const first = sandbox.exec("mkfifo /tmp/gate; read < /tmp/gate");
    await expect.poll(async () => (await sandbox.exists("/tmp/gate")).exists).toBe(true);
    const refused = await rejection(sandbox.exec("true", { queueTimeout: 100 }));
    expect(refused).toMatchObject({ code: expect.stringMatching(/RESOURCE_BUSY|COMMAND_TIMEOUT/) });
    const patient = sandbox.exec("echo ran", { timeout: 5000 });
    await sandbox.exec("echo > /tmp/gate", { sessionId: "other" });
    await first;
    expect((await patient).stdout).toBe("ran");
  });

  test("S08 deleting a session fails the waiting commands", async ({ sandbox }) => {
    const session = await sandbox.createSession({ id: "doomed" });
    const running = rejection(session.exec("touch /tmp/runs; sleep 30"));
    await expect.poll(async () => (await sandbox.exists("/tmp/runs")).exists).toBe(true);
    const waiting = rejection(session.exec("true"));
    await expect.poll(async () => (await sandbox.listSessions()).find(({ id }) => id === "doomed")?.waiting).toBe(1);
    await sandbox.deleteSession("doomed");
    expect(await waiting).toBeInstanceOf(SessionDestroyedError);
    expect(await waiting).toMatchObject({ sessionId: "doomed", httpStatus: 410 });
    expect(await running).toMatchObject({ code: expect.stringMatching(/SESSION_DESTROYED|OPERATION_INTERRUPTED/) });
  });

  test("S08 X04 more than 256 waiting commands are refused with a time to try again", async ({ sandbox }) => {
    const first = sandbox.exec("mkfifo /tmp/gate; read < /tmp/gate");
    await expect.poll(async () => (await sandbox.exists("/tmp/gate")).exists).toBe(true);
    const settled = Array.from({ length: 257 }, () => sandbox.exec("true").catch((error: unknown) => error));
    const refused = await Promise.race(settled);
    expect(refused).toBeInstanceOf(ResourceBusyError);
    expect(refused).toMatchObject({ httpStatus: 409, context: { sessionId: "default", waiting: 256 } });
    expect((refused as ResourceBusyError).retryAfter).toBeGreaterThan(0);
    await sandbox.exec("echo > /tmp/gate", { sessionId: "other" });
    await first;
    const results = await Promise.all(settled);
    expect(results.filter((result) => isExecResult(result) && result.success)).toHaveLength(256);
  });
});

describe("S09 options of one command", () => {
  test("S09 env, cwd and stdin hold for that command only", async ({ sandbox }) => {
    await sandbox.exec("export A=outer; cd /workspace");
    const once = await sandbox.exec('cat; echo "$A $B ${C-unset} $PWD"', {
      env: { A: "inner", B: "new", C: undefined },
      cwd: "/tmp",
      stdin: "from stdin\n",
    });
    expect(once.stdout).toBe("from stdin\ninner new unset /tmp");
    expect((await sandbox.exec('echo "$A ${B-unset} $PWD"; cat | wc -c')).stdout).toBe("outer unset /workspace\n0");
  });

  test("S09 null unsets for one command", async ({ sandbox }) => {
    await sandbox.exec("export A=1");
    expect((await sandbox.exec("echo ${A-unset}", { env: { A: null } })).stdout).toBe("unset");
    expect((await sandbox.exec("echo ${A-unset}")).stdout).toBe("1");
  });

  test("S09 stdin is text of any length and kind", async ({ sandbox }) => {
    const stdin = "zeile\n'\"$`\\ ünï 🦀\0after NUL\n".repeat(10_000);
    const { stdout } = await sandbox.exec("cat", { stdin, stripFinalNewline: false });
    expect(stdout === stdin).toBe(true);
  });

  test("S09 a cwd that is not there is a failed command that says so", async ({ sandbox }) => {
    const result = await sandbox.exec("touch /tmp/ran", { cwd: "/no/such/dir" });
    expect(result).toMatchObject({ success: false, exitCode: 1 });
    expect(result.stderr).toContain("/no/such/dir");
    expect((await sandbox.exists("/tmp/ran")).exists).toBe(false);
  });
});

describe("S13 bounded output", () => {
  test("S13 the first and last half are kept and the loss is counted", async ({ sandbox }) => {
    const { stdout, truncated } = await sandbox.exec("printf A; head -c 100000 /dev/zero | tr '\\0' x; printf Z", {
      maxOutputBytes: 1000,
    });
    expect(truncated).toEqual({ stdout: 100_002 - 1000 });
    expect(stdout.length).toBe(1000);
    expect([stdout[0], stdout.at(-1)]).toEqual(["A", "Z"]);
  });

  test("S13 10 MB come whole by default", async ({ sandbox }) => {
    const result = await sandbox.exec("head -c 10000000 /dev/zero | tr '\\0' y");
    expect(result.stdout.length).toBe(10_000_000);
    expect(result).not.toHaveProperty("truncated");
  });
});

describe("callbacks", () => {
  test("onOutput sees output while the command runs, onComplete the result", async ({ sandbox }) => {
    const seen: string[] = [];
    let opened = false;
    const result = await sandbox.exec("mkfifo /tmp/gate; echo first; echo oops >&2; read < /tmp/gate; echo last", {
      stream: true,
      onOutput: (stream, data) => {
        seen.push(`${stream}:${data}`);
        if (opened) return;
        opened = true;
        // The command waits for this: output that came only at its end would never come.
        void sandbox.exec("echo > /tmp/gate", { sessionId: "other" });
      },
      onComplete: (completed) => seen.push(`complete:${completed.exitCode}`),
    });
    expect(result).toMatchObject({ stdout: "first\nlast", stderr: "oops", exitCode: 0 });
    expect(seen.at(-1)).toBe("complete:0");
    const joined = (name: string) =>
      seen
        .filter((text) => text.startsWith(name))
        .map((text) => text.slice(7))
        .join("");
    expect([joined("stdout:"), joined("stderr:")]).toEqual(["first\nlast\n", "oops\n"]);
  });

  test("onError sees what exec rejects with, with and without streaming", async ({ sandbox }) => {
    for (const onOutput of [undefined, () => {}]) {
      const seen: Error[] = [];
      const call = sandbox.exec("sleep 30", { timeout: 150, onOutput, onError: (error) => seen.push(error) });
      const error = await rejection(call);
      expect(error).toBeInstanceOf(CommandTimeoutError);
      expect(seen).toEqual([error]);
    }
  });
});

describe("X02 bad input", () => {
  test("X02 an empty command is InvalidCommandError", async ({ sandbox }) => {
    for (const command of ["", "  \n"]) {
      const error = await rejection(sandbox.exec(command));
      expect(error).toBeInstanceOf(InvalidCommandError);
      expect(error).toMatchObject({ code: "INVALID_COMMAND", httpStatus: 400, operation: "exec" });
    }
  });

  test("X02 bad options name their field", async ({ sandbox }) => {
    for (const [field, command, options] of [
      ["command", "a\0b", {}],
      ["timeout", "true", { timeout: -1 }],
      ["timeout", "true", { timeout: 1.5 }],
      ["queueTimeout", "true", { queueTimeout: 1e12 }],
      ["env", "true", { env: { "": "x" } }],
      ["env", "true", { env: { A: 1 as unknown as string } }],
      ["cwd", "true", { cwd: "" }],
      ["encoding", "true", { encoding: "latin1" as "utf8" }],
      ["maxOutputBytes", "true", { maxOutputBytes: 2 ** 40 }],
      ["sessionId", "true", { sessionId: "a/b" }],
    ] as const) {
      const error = await rejection(sandbox.exec(command, options));
      expect(error, field).toBeInstanceOf(ValidationFailedError);
      expect((error as ValidationFailedError).message, field).toContain(field);
      expect(error, field).toMatchObject({ httpStatus: 400 });
    }
  });
});
