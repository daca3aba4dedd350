import { CommandTimeoutError, type ExecEvent, getSandbox, InvalidCommandError, parseSSEStream } from "sandcrab";
import { describe, expect, inject } from "vitest";
import { Cutter } from "../support/cutter.js";
import { connection, eventsOf, rejection, stdoutOf, test } from "../support/sandbox.js";

describe("execStream", () => {
  test("S02 S03 says start, output as bytes came, and the true end", async ({ sandbox }) => {
    const events = await eventsOf(await sandbox.execStream("printf 'out\\n\\n'; printf err >&2; exit 3"));
    expect(events[0]).toMatchObject({ type: "start", command: "printf 'out\\n\\n'; printf err >&2; exit 3" });
    expect(stdoutOf(events)).toBe("out\n\n");
    expect(events.flatMap((event) => (event.type === "stderr" ? [event.data] : [])).join("")).toBe("err");
    expect(events.at(-1)).toMatchObject({ type: "complete", exitCode: 3 });
    for (const event of events) expect(event.timestamp).toMatch(/^\d{4}-.+Z$/);
  });

  test("S02 each line arrives when it is written, and no character is split", async ({ sandbox }) => {
    const stream = await sandbox.execStream(
      "mkfifo /tmp/1 /tmp/2; printf 'a\\xf0\\x9f'; read < /tmp/1; printf '\\xa6\\x80b'; read < /tmp/2; printf '\\xff'",
    );
    let stdout = "";
    for await (const event of parseSSEStream<ExecEvent>(stream)) {
      if (event.type !== "stdout") continue;
      stdout += event.data;
      // A gate for each wait: a second reader of one FIFO could meet the first writer before it has gone.
      if (stdout === "a") await sandbox.exec("echo > /tmp/1", { sessionId: "other" });
      if (stdout === "a🦀b") await sandbox.exec("echo > /tmp/2", { sessionId: "other" });
    }
    expect(stdout).toBe("a🦀b\ufffd");
  });

  test("S02 base64 gives the bytes", async ({ sandbox }) => {
    const events = await eventsOf(await sandbox.execStream("printf '\\x00\\xff\\xf0'", { encoding: "base64" }));
    const bytes = Buffer.concat(
      events.map((event) => Buffer.from(event.type === "stdout" ? event.data : "", "base64")),
    );
    expect(bytes).toEqual(Buffer.from([0, 0xff, 0xf0]));
  });

  test("S09 takes env, cwd and stdin, and runs in its session", async ({ sandbox }) => {
    const session = await sandbox.createSession({ id: "streams", cwd: "/tmp" });
    await session.exec("V=state");
    const options = { env: { E: "env" }, stdin: "in" };
    expect(stdoutOf(await eventsOf(await session.execStream('echo "$V $E $PWD"; cat', options)))).toBe(
      "state env /tmp\nin",
    );
    const there = { sessionId: "streams", cwd: "/" };
    expect(stdoutOf(await eventsOf(await sandbox.execStream("echo $V $PWD", there)))).toBe("state /\n");
  });

  test("S06 a timeout is the stream's last event", async ({ sandbox }) => {
    const events = await eventsOf(await sandbox.execStream("echo a; sleep 30", { timeout: 200 }));
    expect(events.at(-1)).toMatchObject({
      type: "error",
      detail: { code: "COMMAND_TIMEOUT", context: { timeout: 200, exitCode: 124 } },
    });
    const streamed = sandbox.exec("sleep 30", { timeout: 150, stream: true, onOutput: () => {} });
    expect(await rejection(streamed)).toBeInstanceOf(CommandTimeoutError);
  });

  test("X02 what cannot be run rejects before there is a stream", async ({ sandbox }) => {
    expect(await rejection(sandbox.execStream(" "))).toBeInstanceOf(InvalidCommandError);
  });

  test("S13 ten megabytes come through byte for byte", async ({ sandbox }) => {
    const stream = await sandbox.execStream("head -c 10000000 /dev/zero | tr '\\0' z");
    let count = 0;
    for await (const event of parseSSEStream<ExecEvent>(stream)) {
      if (event.type !== "stdout") continue;
      expect(event.data.length === 0 || (event.data[0] === "z" && event.data.at(-1) === "z")).toBe(true);
      count += event.data.length;
    }
    expect(count).toBe(10_000_000);
  });
});

describe("S12 lost connections", () => {
  const numbers = (count: number) => Array.from({ length: count }, (_, at) => `${at + 1} ü🦀\n`).join("");

  test("S12 a stream cut again and again has every byte once", async ({ sandbox }) => {
    await using cutter = await Cutter.start(inject("url"));
    cutter.budgets.push(3000, 20_001, 999, 50_000, 70_003, 400);
    const through = getSandbox(connection(cutter.url), sandbox.id);
    const events = await eventsOf(await through.execStream('for ((i = 1; i <= 20000; i++)); do echo "$i ü🦀"; done'));
    expect(cutter.cuts).toBe(6);
    expect(stdoutOf(events) === numbers(20_000)).toBe(true);
    expect(events.filter(({ type }) => type === "start")).toHaveLength(1);
    expect(events.at(-1)).toMatchObject({ type: "complete", exitCode: 0 });
  });

  test("S12 a command goes on while nobody listens, and the stream finds all of it", async ({ sandbox }) => {
    await using cutter = await Cutter.start(inject("url"));
    const through = getSandbox(connection(cutter.url), sandbox.id);
    const stream = await through.execStream(
      "mkfifo /tmp/gate; echo before; read < /tmp/gate; echo after; touch /tmp/ended",
    );
    const events: ExecEvent[] = [];
    for await (const event of parseSSEStream<ExecEvent>(stream)) {
      events.push(event);
      if (event.type !== "stdout" || event.data !== "before\n") continue;
      cutter.cutAll();
      await sandbox.exec("echo > /tmp/gate", { sessionId: "other" });
    }
    expect(cutter.cuts).toBeGreaterThan(0);
    expect(stdoutOf(events)).toBe("before\nafter\n");
    expect((await sandbox.exists("/tmp/ended")).exists).toBe(true);
  });

  test("S12 an exec whose answer was lost runs once and returns its result", async ({ sandbox }) => {
    await using cutter = await Cutter.start(inject("url"));
    cutter.budgets.push(10, 100);
    const through = getSandbox(connection(cutter.url), sandbox.id);
    const { stdout } = await through.exec("echo run >> /tmp/runs; wc -l < /tmp/runs");
    expect(cutter.cuts).toBe(2);
    expect(stdout).toBe("1");
    expect((await sandbox.exec("wc -l < /tmp/runs")).stdout).toBe("1");
  });

  test("S12 a connection cut in the middle of a long exec kills nothing", async ({ sandbox }) => {
    await using cutter = await Cutter.start(inject("url"));
    const through = getSandbox(connection(cutter.url), sandbox.id);
    const running = through.exec("mkfifo /tmp/gate; read < /tmp/gate; echo whole");
    await expect.poll(async () => (await sandbox.exists("/tmp/gate")).exists).toBe(true);
    cutter.cutAll();
    await sandbox.exec("echo > /tmp/gate", { sessionId: "other" });
    expect((await running).stdout).toBe("whole");
  });
});

describe("S12 cancelling", () => {
  test("S12 S06 aborting an exec kills its tree before the call rejects, and keeps the session", async ({
    sandbox,
  }) => {
    await sandbox.exec("KEPT=1");
    const abort = new AbortController();
    const running = rejection(
      sandbox.exec("touch /tmp/runs; sleep 30 | sleep 31; touch /tmp/evil", { signal: abort.signal }),
    );
    await expect.poll(async () => (await sandbox.exists("/tmp/runs")).exists).toBe(true);
    abort.abort();
    expect(await running).toMatchObject({ name: "AbortError" });
    const after = await sandbox.exec("echo $KEPT; pgrep -x sleep | wc -l; ls /tmp/evil 2>/dev/null");
    expect(after.stdout).toBe("1\n0");
  });

  test("S12 a reason given to abort is what the call rejects with", async ({ sandbox }) => {
    const reason = new Error("user went away");
    const abort = new AbortController();
    const running = rejection(sandbox.exec("sleep 30", { signal: abort.signal }));
    abort.abort(reason);
    expect(await running).toBe(reason);
    const late = AbortSignal.timeout(150);
    expect(await rejection(sandbox.exec("sleep 30", { signal: late }))).toMatchObject({ name: "TimeoutError" });
    expect((await sandbox.exec("pgrep -x sleep | wc -l")).stdout).toBe("0");
  });

  test("S12 aborting a stream kills the command and fails the stream", async ({ sandbox }) => {
    const abort = new AbortController();
    const stream = await sandbox.execStream("echo up; sleep 30; touch /tmp/evil", { signal: abort.signal });
    const reading = async () => {
      for await (const event of parseSSEStream<ExecEvent>(stream)) {
        if (event.type === "stdout") abort.abort();
      }
    };
    expect(await rejection(reading())).toMatchObject({ name: "AbortError" });
    expect((await sandbox.exec("pgrep -x sleep | wc -l; ls /tmp/evil 2>/dev/null")).stdout).toBe("0");
  });

  test("S12 leaving a stream kills nothing", async ({ sandbox }) => {
    const stream = await sandbox.execStream("mkfifo /tmp/gate; echo up; read < /tmp/gate; touch /tmp/went-on");
    for await (const event of parseSSEStream<ExecEvent>(stream)) {
      if (event.type === "stdout") break;
    }
    await sandbox.exec("echo > /tmp/gate", { sessionId: "other" });
    // The default session takes this up when the command before it has ended.
    expect((await sandbox.exec("ls /tmp/went-on")).exitCode).toBe(0);
  });
});
