import { connect, type ExecEvent, getSandbox, parseSSEStream } from "sandcrab";
import { afterAll, beforeAll, expect, test } from "vitest";
import { stdoutOf } from "../support/sandbox.js";
import { type RunningServer, startServer } from "../support/server.js";

let server: RunningServer;

beforeAll(async () => {
  server = await startServer("http://127.0.0.1:1");
});

afterAll(() => server?.stop());

// The first sandbox of a server builds the host image, which takes a while on a busy machine.
const TIME = { timeout: 120_000 };

test("L05 S12 commands and streams outlive a killed server, and their callers need not know", TIME, async () => {
  const sandbox = getSandbox(connect({ url: server.url, apiKey: server.key }), "outlives");
  try {
    await sandbox.exec("mkfifo /tmp/first /tmp/second; KEPT=1; cd /tmp");
    const running = sandbox.exec("echo up > /tmp/up; read < /tmp/first; echo whole", { sessionId: "a" });
    const stream = await sandbox.execStream("echo before; read < /tmp/second; echo after", { sessionId: "b" });
    const events: ExecEvent[] = [];
    await expect.poll(async () => (await sandbox.exists("/tmp/up")).exists).toBe(true);
    for await (const event of parseSSEStream<ExecEvent>(stream)) {
      events.push(event);
      if (stdoutOf(events) !== "before\n" || event.type !== "stdout") continue;
      await server.crash();
      await sandbox.exec("echo > /tmp/first; echo > /tmp/second", { sessionId: "c" });
    }
    expect(stdoutOf(events)).toBe("before\nafter\n");
    expect(await running).toMatchObject({ stdout: "whole", exitCode: 0 });
    expect((await sandbox.exec("echo $KEPT $PWD")).stdout).toBe("1 /tmp");
  } finally {
    await sandbox.destroy();
  }
});
