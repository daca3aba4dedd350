import {
  type CodeContext,
  ContextNotFoundError,
  type ExecutionError,
  parseSSEStream,
  type Result,
  ValidationFailedError,
} from "sandcrab";
import { expect } from "vitest";
import { rejection, test } from "../support/sandbox.js";

test("K01 a run's result has every documented field, and its state stays", async ({ sandbox }) => {
  const first = await sandbox.runCode("import math\nx = 20\nprint('out')\nimport sys; print('err', file=sys.stderr)");
  expect(first).toMatchObject({
    logs: { stdout: ["out\n"], stderr: ["err\n"] },
    results: [],
    executionCount: 1,
  });
  expect(first.error).toBeUndefined();
  const second = await sandbox.runCode("x * 2 + math.floor(2.5)", { language: "python3" });
  expect(second).toMatchObject({ code: "x * 2 + math.floor(2.5)", results: [{ text: "42" }], executionCount: 2 });
  expect(second.contextId).toBe(first.contextId);
  expect(second.duration).toBeGreaterThan(0);
  const rich = await sandbox.runCode(
    "class R:\n  def _repr_html_(self): return '<b>'\n  def __repr__(self): return 'r'\nR()",
  );
  expect(rich.results[0]?.formats().sort()).toEqual(["html", "text"]);
  expect(JSON.parse(JSON.stringify(rich.results[0]))).toEqual({ text: "r", html: "<b>" });
});

test("K01 javascript and typescript give the last value, await, and declare again", async ({ sandbox }) => {
  const js = (code: string) => sandbox.runCode(code, { language: "js" });
  expect((await js("const a = 1; a")).results[0]?.text).toBe("1");
  const again = await js("const a = await Promise.resolve({ b: [2] }); a");
  expect(again.results[0]?.json).toEqual({ b: [2] });
  expect((await js("import { sep } from 'node:path'; sep + require('node:path').delimiter")).results[0]?.text).toBe(
    "'/:'",
  );
  const ts = await sandbox.runCode("enum E { A = 3 }\nconst e: E = E.A; e as number", { language: "typescript" });
  expect(ts.results[0]?.text).toBe("3");
});

test("K01 errors have name, message, value, traceback and line, and are told to onError", async ({ sandbox }) => {
  const told: ExecutionError[] = [];
  const result = await sandbox.runCode("def f():\n  return 1 / 0\nf()", { onError: (error) => void told.push(error) });
  expect(result.error).toMatchObject({
    name: "ZeroDivisionError",
    message: "division by zero",
    value: "division by zero",
    lineNumber: 2,
  });
  expect(result.error?.traceback.at(-1)).toBe("ZeroDivisionError: division by zero");
  expect(told).toEqual([result.error]);
});

test("K01 output and results come while the code runs", async ({ sandbox }) => {
  const seen: string[] = [];
  const results: Result[] = [];
  const code = "import os\nos.mkfifo('/tmp/go')\nprint('before')\nopen('/tmp/go').read()\nprint('after')\n'end'";
  const result = await sandbox.runCode(code, {
    onStdout: async ({ text, timestamp }) => {
      seen.push(text);
      expect(Math.abs(timestamp - Date.now())).toBeLessThan(60_000);
      // The code goes on only when its first line has come here.
      if (text.includes("before")) await sandbox.exec("echo go > /tmp/go");
    },
    onStderr: ({ text }) => void seen.push(`err ${text}`),
    onResult: (shown) => void results.push(shown),
  });
  expect(seen.join("")).toBe("before\nafter\n");
  expect(results.map((shown) => [shown.text, shown.formats()])).toEqual([["'end'", ["text"]]]);
  expect(result.logs.stdout.join("")).toBe("before\nafter\n");
});

test("K01 runCodeStream gives the documented events", async ({ sandbox }) => {
  const events = async (code: string) => {
    const all: Record<string, unknown>[] = [];
    const stream = await sandbox.runCodeStream(code);
    for await (const event of parseSSEStream<Record<string, unknown>>(stream)) all.push(event);
    return all;
  };
  const good = await events("print('a')\ndisplay(1)\n2");
  expect(good.map(({ type }) => type)).toEqual(["start", "stdout", "result", "result", "execution_complete"]);
  expect(good[1]).toEqual({ type: "stdout", text: "a\n" });
  expect(good[4]).toMatchObject({ execution_count: 1 });
  const bad = await events("1 / 0");
  expect(bad.at(-1)).toMatchObject({ type: "error", ename: "ZeroDivisionError", evalue: "division by zero" });
  expect(bad.at(-1)?.traceback).toContain("ZeroDivisionError: division by zero");
});

test("K01 contexts are apart, listed and deleted", async ({ sandbox }) => {
  const a = await sandbox.createCodeContext();
  const b = await sandbox.createCodeContext({ language: "javascript", envVars: { MINE: "b" }, cwd: "/tmp/b" });
  expect(a).toMatchObject({ language: "python", cwd: "/workspace" });
  expect(b).toMatchObject({ language: "javascript", cwd: "/tmp/b" });
  expect(a.createdAt).toBeInstanceOf(Date);
  await sandbox.runCode("x = 1", { context: a });
  // A context wins over the language.
  const seen = await sandbox.runCode("[process.env.MINE, process.cwd()].join()", { context: b, language: "python" });
  expect(seen.results[0]?.text).toBe("'b,/tmp/b'");
  expect((await sandbox.runCode("x")).error?.name).toBe("NameError");
  const list: CodeContext[] = await sandbox.listCodeContexts();
  expect(list.map(({ id }) => id).slice(0, 2)).toEqual([a.id, b.id]);
  expect(list[0]?.lastUsed.getTime()).toBeGreaterThanOrEqual(a.createdAt.getTime());
  expect(await sandbox.deleteCodeContext(a.id)).toMatchObject({ success: true, contextId: a.id });
  const gone = await rejection(sandbox.runCode("1", { context: a }));
  expect(gone).toBeInstanceOf(ContextNotFoundError);
  expect(gone).toMatchObject({ httpStatus: 404, context: { contextId: a.id } });
  const bad = await rejection(sandbox.createCodeContext({ timeout: 0 }));
  expect(bad).toBeInstanceOf(ValidationFailedError);
});

test("S14 a session's code starts where the session stands, and options win", async ({ sandbox }) => {
  const session = await sandbox.createSession({ id: "s", env: { FROM: "session" } });
  await session.exec("mkdir sub; cd sub; export MORE=1");
  const seen = "import os; [os.getcwd(), os.environ.get('FROM'), os.environ.get('MORE')]";
  const read = async (run: ReturnType<typeof session.runCode>) => (await run).results[0]?.json;
  expect(await read(session.runCode(seen))).toEqual(["/workspace/sub", "session", "1"]);
  const own = await session.createCodeContext({ envVars: { FROM: "option" }, cwd: "/tmp" });
  expect(await read(session.runCode(seen, { context: own }))).toEqual(["/tmp", "option", "1"]);
  expect(await read(sandbox.runCode(seen, { sessionId: "s" }))).toEqual(["/workspace/sub", "session", "1"]);
  expect(await read(sandbox.runCode(seen))).toEqual(["/workspace", null, null]);
  expect(await read(session.runCode(seen, { envVars: { FROM: "once", MORE: null } }))).toEqual([
    "/workspace/sub",
    "once",
    null,
  ]);
});

test("S11 setEnvVars reaches contexts with their next run", async ({ sandbox }) => {
  const seen = "import os; os.environ.get('LATER')";
  expect((await sandbox.runCode(seen)).results).toEqual([]);
  await sandbox.setEnvVars({ LATER: "now" });
  expect((await sandbox.runCode(seen)).results[0]?.text).toBe("'now'");
  await sandbox.setEnvVars({ LATER: undefined });
  expect((await sandbox.runCode(seen)).results).toEqual([]);
});

test("K02 an aborted run rejects with the signal's reason, and its context keeps its state", async ({ sandbox }) => {
  await sandbox.runCode("kept = 1");
  const controller = new AbortController();
  const run = sandbox.runCode("print('on')\nwhile True: pass", {
    signal: controller.signal,
    onStdout: () => controller.abort(new Error("enough")),
  });
  expect(await rejection(run)).toMatchObject({ message: "enough" });
  const plain = new AbortController();
  const pending = sandbox.runCode("open('/tmp/on', 'w').close()\nwhile True: pass", { signal: plain.signal });
  await sandbox.exec("until [ -e /tmp/on ]; do :; done");
  plain.abort(new Error("too long"));
  expect(await rejection(pending)).toMatchObject({ message: "too long" });
  expect((await sandbox.runCode("kept")).results[0]?.text).toBe("1");
});

test("K02 a timeout is an error of the result; a dead interpreter is replaced and told of", async ({ sandbox }) => {
  await sandbox.runCode("kept = 1");
  const late = await sandbox.runCode("print('on')\nwhile True: pass", { timeout: 200 });
  expect(late).toMatchObject({ error: { name: "TimeoutError" }, logs: { stdout: ["on\n"] } });
  expect(late.contextRestarted).toBeUndefined();
  expect((await sandbox.runCode("kept")).results[0]?.text).toBe("1");
  const dead = await sandbox.runCode("import os; os._exit(3)");
  expect(dead).toMatchObject({ error: { name: "InterpreterExited" }, contextRestarted: true });
  expect((await sandbox.runCode("kept")).error?.name).toBe("NameError");
});
