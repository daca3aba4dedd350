import {
  ConnectionError,
  getSandbox,
  isProcess,
  type LogEvent,
  type Process,
  ProcessAlreadyExistsError,
  ProcessExitedBeforeReadyError,
  ProcessNotFoundError,
  ProcessReadyTimeoutError,
  parseSSEStream,
  ValidationFailedError,
} from "sandcrab";
import { describe, expect, inject } from "vitest";
import { WebSocket } from "ws";
import { Cutter } from "../support/cutter.js";
import { connection, rejection, test } from "../support/sandbox.js";

async function logEvents(stream: ReadableStream<Uint8Array>): Promise<LogEvent[]> {
  const events: LogEvent[] = [];
  for await (const event of parseSSEStream<LogEvent>(stream)) events.push(event);
  return events;
}

const textOf = (events: LogEvent[], type: "stdout" | "stderr") =>
  events.map((event) => (event.type === type ? event.data : "")).join("");

describe("processes", () => {
  test("P01 a process runs when startProcess returns and outlives its session", async ({ sandbox }) => {
    const session = await sandbox.createSession({ id: "s", cwd: "/tmp" });
    await session.exec("export A=1");
    const started: Process[] = [];
    const process = await session.startProcess("echo $A $PWD; sleep 1000", {
      processId: "server",
      onStart: (process) => started.push(process),
    });
    expect(process).toMatchObject({ id: "server", status: "running", sessionId: "s", exitCode: undefined });
    expect(process.command).toBe("echo $A $PWD; sleep 1000");
    expect(process.pid).toBeGreaterThan(1);
    expect(process.startTime).toBeInstanceOf(Date);
    expect(isProcess(process)).toBe(true);
    expect(started).toEqual([process]);
    await process.waitForLog("1 /tmp", 20_000);
    await sandbox.deleteSession("s");
    expect(await process.getStatus()).toBe("running");
    expect((await sandbox.listProcesses()).map(({ id }) => id)).toEqual(["server"]);
    expect(await sandbox.getProcess("server")).toMatchObject({ id: "server", pid: process.pid });
    expect(await sandbox.getProcess("nonesuch")).toBeNull();
    const again = await rejection(sandbox.startProcess("true", { processId: "server" }));
    expect(again).toBeInstanceOf(ProcessAlreadyExistsError);
    expect(await sandbox.killAllProcesses()).toBe(1);
  });

  test("P01 callbacks follow a process to its end", async ({ sandbox }) => {
    const output: string[] = [];
    const code = await new Promise<number>((onExit, onError) => {
      const onOutput = (stream: string, data: string) => output.push(`${stream}: ${data}`);
      sandbox.startProcess("echo out; sleep 0.1; echo err >&2; exit 7", { onOutput, onExit, onError });
    });
    expect(code).toBe(7);
    expect(output).toEqual(["stdout: out\n", "stderr: err\n"]);
    const errors: Error[] = [];
    const failed = sandbox.startProcess("true", { cwd: "/nonesuch", onError: (error) => errors.push(error) });
    expect(await rejection(failed)).toMatchObject({ code: "FILE_NOT_FOUND" });
    expect(errors).toHaveLength(1);
  });

  test("P01 a process is talked with over a WebSocket, left and attached to again", async ({ sandbox }) => {
    const withSockets = getSandbox(connection(undefined, { WebSocket }), sandbox.id);
    const talker = 'while read line; do echo "got $line"; done; exit 4';
    const process = await withSockets.startProcess(talker, { stdin: "pipe" });
    const talk = async (words: string | Uint8Array, answer: string) => {
      const { stdin, output } = await process.attach();
      const writer = stdin.getWriter();
      const reader = output.getReader();
      expect((await reader.read()).value).toMatchObject({ type: "process_info", processId: process.id });
      await writer.write(words);
      let text = "";
      while (!text.endsWith(answer)) {
        const { value } = await reader.read();
        if (value?.type === "stdout") text += value.data;
      }
      return { writer, reader, text };
    };
    const first = await talk("one\n", "got one\n");
    await first.reader.cancel();
    expect(await rejection(first.writer.write("too late\n"))).toBeInstanceOf(ConnectionError);
    expect(await process.getStatus()).toBe("running");
    // All that was written, and nothing of what came too late.
    const { writer, reader, text } = await talk(new TextEncoder().encode("two\n"), "got two\n");
    expect(text).toBe("got one\ngot two\n");
    // More than one message holds, and more than the process's pipe.
    await writer.write(`${"x".repeat(300_000)}\n`);
    await writer.close();
    let rest = "";
    let last: LogEvent | undefined;
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      last = next.value;
      if (last.type === "stdout") rest += last.data;
    }
    expect(rest).toBe(`got ${"x".repeat(300_000)}\n`);
    expect(last).toMatchObject({ type: "exit", exitCode: 4 });
  });

  test("P01 what cannot be attached to says so, and aborting leaves the process", async ({ sandbox }) => {
    const withSockets = getSandbox(connection(undefined, { WebSocket }), sandbox.id);
    const deaf = await withSockets.startProcess("exec sleep 1000");
    const { stdin, output } = await deaf.attach();
    const reader = output.getReader();
    await reader.read();
    await stdin.getWriter().write("hello?");
    expect(await rejection(reader.read())).toBeInstanceOf(ValidationFailedError);

    const leave = new AbortController();
    const left = (await deaf.attach({ signal: leave.signal })).output.getReader();
    await left.read();
    leave.abort("enough");
    expect(await rejection(left.read())).toBe("enough");
    expect(await rejection(deaf.attach({ signal: leave.signal }))).toBe("enough");
    expect(await deaf.getStatus()).toBe("running");
    await deaf.kill();
    await sandbox.cleanupCompletedProcesses();
    expect(await rejection(deaf.attach())).toBeInstanceOf(ProcessNotFoundError);
    if (!("WebSocket" in globalThis)) {
      const process = await sandbox.startProcess("exec sleep 1000");
      expect(await rejection(process.attach())).toMatchObject({
        code: "VALIDATION_FAILED",
        context: { validationErrors: [{ field: "WebSocket" }] },
      });
    }
  });

  test("P02 kill takes the whole tree and returns when none of it is left", async ({ sandbox }) => {
    const process = await sandbox.startProcess("sleep 1000 & (setsid sleep 1000 &); sleep 1000 & echo up; wait");
    await process.waitForLog("up", 20_000);
    await process.kill();
    expect((await sandbox.exec("pgrep -x sleep | wc -l")).stdout).toBe("0");
    expect(await sandbox.getProcess(process.id)).toMatchObject({ status: "killed", exitCode: 143 });
    expect(await rejection(process.kill())).toBeInstanceOf(ProcessNotFoundError);
    expect(await rejection(sandbox.killProcess("nonesuch"))).toMatchObject({
      code: "PROCESS_NOT_FOUND",
      context: { processId: "nonesuch" },
    });
    const stubborn = await sandbox.startProcess("trap '' TERM; echo up; while :; do sleep 1; done");
    await stubborn.waitForLog("up", 20_000);
    await sandbox.killProcess(stubborn.id, "SIGKILL");
    expect(await sandbox.getProcess(stubborn.id)).toMatchObject({ status: "killed", exitCode: 137 });
    expect(await sandbox.cleanupCompletedProcesses()).toBe(2);
    expect(await sandbox.listProcesses()).toEqual([]);
  });

  test("P02 a timeout ends a process and a name of no signal is refused", async ({ sandbox }) => {
    const process = await sandbox.startProcess("sleep 1000", { timeout: 200 });
    expect(await process.waitForExit(20_000)).toEqual({ exitCode: 143 });
    expect(await process.getStatus()).toBe("killed");
    const other = await sandbox.startProcess("sleep 1000");
    expect(await rejection(other.kill("SIGNOPE"))).toBeInstanceOf(ValidationFailedError);
    await other.kill(9);
  });

  test("P03 logs are kept apart, and a stream replays, follows and ends with the exit", async ({ sandbox }) => {
    const process = await sandbox.startProcess("echo a; echo b >&2; read x; echo $x; exit 3", { stdin: "pipe" });
    await process.waitForLog("b", 20_000);
    const events = logEvents(await sandbox.streamProcessLogs(process.id));
    await process.writeStdin("c ü\n");
    const all = await events;
    expect(all[0]).toMatchObject({ type: "process_info", processId: process.id, status: "running" });
    expect([textOf(all, "stdout"), textOf(all, "stderr")]).toEqual(["a\nc ü\n", "b\n"]);
    expect(all.at(-1)).toMatchObject({ type: "exit", exitCode: 3, processId: process.id });
    expect(await process.getLogs()).toEqual({ stdout: "a\nc ü\n", stderr: "b\n" });
    const logs = { stdout: "a\nc ü\n", stderr: "b\n", processId: process.id };
    expect(await sandbox.getProcessLogs(process.id)).toEqual(logs);
    expect(await rejection(sandbox.getProcessLogs("nonesuch"))).toBeInstanceOf(ProcessNotFoundError);
  });

  test("P03 S12 a log that is cut again and again has every byte once", async ({ sandbox }) => {
    await using cutter = await Cutter.start(inject("url"));
    cutter.budgets.push(3000, 20_001, 999, 50_000, 400);
    const through = getSandbox(connection(cutter.url), sandbox.id);
    const { id } = await sandbox.startProcess('for ((i = 1; i <= 20000; i++)); do echo "$i ü🦀"; done');
    const events = await logEvents(await through.streamProcessLogs(id));
    expect(cutter.cuts).toBe(5);
    const numbers = Array.from({ length: 20_000 }, (_, at) => `${at + 1} ü🦀\n`).join("");
    expect(textOf(events, "stdout") === numbers).toBe(true);
    expect(events.filter(({ type }) => type === "process_info")).toHaveLength(1);
    expect(events.at(-1)).toMatchObject({ type: "exit", exitCode: 0 });
  });

  test("P03 leaving or aborting a stream ends no process", async ({ sandbox }) => {
    const process = await sandbox.startProcess("echo up; sleep 1000");
    const abort = new AbortController();
    const stream = await sandbox.streamProcessLogs(process.id, { signal: abort.signal });
    const reading = async () => {
      for await (const event of parseSSEStream<LogEvent>(stream)) {
        if (event.type === "stdout") abort.abort();
      }
    };
    expect(await rejection(reading())).toMatchObject({ name: "AbortError" });
    expect(await process.getStatus()).toBe("running");
    await process.kill();
  });

  test("P04 waitForLog finds texts and patterns, in the past and to come", async ({ sandbox }) => {
    const command = "echo first; read x; printf 'port 80'; sleep 0.01; echo 80; printf '> '; read x; exit 5";
    const process = await sandbox.startProcess(command, { stdin: "pipe" });
    expect(await process.waitForLog("irs", 20_000)).toEqual({ line: "first", stream: "stdout" });
    const found = process.waitForLog(/port (?<number>\d+)/g, 20_000);
    await process.writeStdin("\n");
    const { line, match } = await found;
    expect([line, match?.[1], match?.groups?.number]).toEqual(["port 8080", "8080", "8080"]);
    expect((await process.waitForLog(/> $/, 20_000)).line).toBe("> ");
    const context = { processId: process.id, command, timeout: 100 };
    const late = await rejection(process.waitForLog("never", 100));
    expect(late).toBeInstanceOf(ProcessReadyTimeoutError);
    expect(late).toMatchObject({ httpStatus: 408, context: { ...context, condition: 'log "never"' } });
    const latePattern = await rejection(process.waitForLog(/never/, 100));
    expect(latePattern).toBeInstanceOf(ProcessReadyTimeoutError);
    expect(latePattern).toMatchObject({ context: { ...context, condition: "log /never/" } });
    const waiting = [rejection(process.waitForLog("never")), rejection(process.waitForLog(/never/))];
    await process.closeStdin();
    for (const error of await Promise.all(waiting)) {
      expect(error).toBeInstanceOf(ProcessExitedBeforeReadyError);
      expect(error).toMatchObject({ context: { processId: process.id, command, exitCode: 5 } });
    }
  });

  test("P04 waitForPort resolves when the port opens, and when HTTP is answered", async ({ sandbox }) => {
    const process = await sandbox.startProcess("sleep 0.2; exec python3 -m http.server 8123 --bind 127.0.0.1");
    await process.waitForPort(8123, { mode: "tcp", timeout: 20_000 });
    await process.waitForPort(8123, { timeout: 20_000 });
    await process.waitForPort(8123, { path: "/nonesuch", status: 404, timeout: 20_000 });
    const late = await rejection(process.waitForPort(8123, { path: "/nonesuch", timeout: 100 }));
    expect(late).toBeInstanceOf(ProcessReadyTimeoutError);
    await process.kill();
    const gone = await sandbox.startProcess("exit 4");
    const error = await rejection(gone.waitForPort(8123, { timeout: 20_000 }));
    expect(error).toBeInstanceOf(ProcessExitedBeforeReadyError);
    expect(error).toMatchObject({ context: { processId: gone.id, exitCode: 4 } });
    expect(await rejection(gone.waitForPort(70_000))).toMatchObject({ httpStatus: 400 });
  });

  test("P04 waitForExit resolves by event or times out", async ({ sandbox }) => {
    const process = await sandbox.startProcess("read x; exit 9", { stdin: "pipe" });
    expect(await rejection(process.waitForExit(50))).toBeInstanceOf(ProcessReadyTimeoutError);
    const exit = process.waitForExit();
    await process.writeStdin("\n");
    expect(await exit).toEqual({ exitCode: 9 });
    expect(await sandbox.getProcess(process.id)).toMatchObject({ status: "failed", exitCode: 9 });
  });

  test("P01 stdin may be a text or a stream", async ({ sandbox }) => {
    const text = await sandbox.startProcess("cat", { stdin: "text ü" });
    await text.waitForExit(20_000);
    expect((await text.getLogs()).stdout).toBe("text ü");
    const pieces = ["one ", new TextEncoder().encode("two "), "three"];
    const stream = new ReadableStream<string | Uint8Array>({
      pull(controller) {
        const piece = pieces.shift();
        if (piece === undefined) controller.close();
        else controller.enqueue(piece);
      },
    });
    const streamed = await sandbox.startProcess("cat", { stdin: stream });
    expect(await streamed.waitForExit(20_000)).toEqual({ exitCode: 0 });
    expect((await streamed.getLogs()).stdout).toBe("one two three");
  });

  test("S11 S14 a process starts with the variables and the directory of its session", async ({ sandbox }) => {
    const output = async (process: Process) => {
      await process.waitForExit(20_000);
      return (await process.getLogs()).stdout;
    };
    await sandbox.exec("cd /tmp; export A=default B=own; C=plain");
    await sandbox.setEnvVars({ B: "sandbox", D: "sandbox" });
    const show = "echo $PWD $A $B $C $D";
    expect(await output(await sandbox.startProcess(show))).toBe("/tmp default own sandbox\n");
    const explicit = { cwd: "/usr", env: { A: "given", D: null } };
    expect(await output(await sandbox.startProcess(show, explicit))).toBe("/usr given own\n");
    const session = await sandbox.createSession({ env: { A: "session" } });
    expect(await output(await session.startProcess(show))).toBe("/workspace session sandbox sandbox\n");
    const named = await sandbox.startProcess(show, { sessionId: session.id });
    expect(await output(named)).toBe("/workspace session sandbox sandbox\n");
  });

  test("P01 a process is restarted until it is killed", async ({ sandbox }) => {
    const process = await sandbox.startProcess("echo run; exit 1", { restart: "always" });
    await expect.poll(async () => (await process.getLogs()).stdout).toMatch(/run\nrun\nrun\n/);
    await process.kill();
    expect(await process.getStatus()).toBe("killed");
  });
});
