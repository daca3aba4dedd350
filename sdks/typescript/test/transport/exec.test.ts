import { expect, test } from "vitest";
import {
  CommandTimeoutError,
  ConnectionError,
  connect,
  getSandbox,
  ServiceNotRespondingError,
} from "../../src/index.js";
import { EdgeServer, failure, json, result } from "./server.js";

test("S09 exec sends what was given and nothing else", async () => {
  await using edge = await EdgeServer.start((request, response) => json(response, result(request)));
  await edge.sandbox().exec("a");
  await edge.sandbox().exec("b", {
    sessionId: "s",
    timeout: 5,
    queueTimeout: 6,
    env: { A: "1", B: undefined, C: null },
    cwd: "/x",
    stdin: "in",
    encoding: "base64",
    maxOutputBytes: 7,
    stripFinalNewline: false,
  });
  const [first, second] = edge.received.map((request) => JSON.parse(request.body.toString()));
  expect(first).toEqual({ command: "a", execId: first.execId });
  expect(second).toEqual({
    command: "b",
    execId: second.execId,
    sessionId: "s",
    timeout: 5,
    queueTimeout: 6,
    env: { A: "1", C: null },
    cwd: "/x",
    stdin: "in",
    encoding: "base64",
    maxOutputBytes: 7,
  });
  expect(first.execId).not.toBe(second.execId);
  expect(edge.received[0]).toMatchObject({ method: "POST", path: "/v1/sandboxes/edge/exec" });
  expect(edge.received[0]?.headers.authorization).toBe("Bearer key");
});

test("enableDefaultSession: false makes every command without a session its own shell", async () => {
  await using edge = await EdgeServer.start((request, response) => json(response, result(request)));
  const sandbox = edge.sandbox({ enableDefaultSession: false });
  await sandbox.exec("a");
  await sandbox.exec("b", { sessionId: "s" });
  await (await sandbox.getSession("t")).exec("c");
  const sent = edge.received.map((request) => JSON.parse(request.body.toString()));
  expect(sent).toMatchObject([{ fresh: true }, { sessionId: "s" }, { sessionId: "t" }]);
  expect(sent[1]).not.toHaveProperty("fresh");
});

test("S02 one final newline of stdout and of stderr is dropped by default, and none on request or in base64", async () => {
  await using edge = await EdgeServer.start((request, response) => {
    const { encoding = "utf8" } = JSON.parse(request.body.toString());
    json(response, result(request, { encoding, stdout: "a\n\n", stderr: "\n" }));
  });
  expect(await edge.sandbox().exec("x")).toMatchObject({ stdout: "a\n", stderr: "" });
  expect(await edge.sandbox().exec("x", { stripFinalNewline: false })).toMatchObject({ stdout: "a\n\n", stderr: "\n" });
  expect(await edge.sandbox().exec("x", { encoding: "base64" })).toMatchObject({ stdout: "a\n\n" });
});

test("S12 a result lost on its way is asked for again under the same id", async () => {
  await using edge = await EdgeServer.start((request, response) => {
    if (edge.received.length === 1) return void response.destroy();
    if (edge.received.length === 2) {
      response.writeHead(200, { "content-type": "application/json", "content-length": 5000 }).write('{"success":tr');
      return void setImmediate(() => response.destroy());
    }
    json(response, result(request, { stdout: "once" }));
  });
  const { stdout } = await edge.sandbox().exec("touch once");
  expect(stdout).toBe("once");
  const ids = edge.received.map((request) => JSON.parse(request.body.toString()).execId);
  expect(ids).toEqual([ids[0], ids[0], ids[0]]);
});

test("X01 a server that is not there is a ConnectionError that names it", async () => {
  const edge = await EdgeServer.start(() => {});
  const { url } = edge;
  await edge[Symbol.asyncDispose]();
  const error = await getSandbox(connect({ url }), "a")
    .createSession()
    .catch((error: unknown) => error);
  expect(error).toBeInstanceOf(ConnectionError);
  expect(error).toBeInstanceOf(ServiceNotRespondingError);
  expect(error).toMatchObject({ code: "SERVICE_NOT_RESPONDING", operation: "createSession", context: { url } });
  expect((error as Error).message).toContain("ECONNREFUSED");
});

test("X04 what changes something and has no id is not sent twice", async () => {
  await using edge = await EdgeServer.start((_, response) => void response.destroy());
  const sandbox = edge.sandbox();
  await expect(sandbox.createSession()).rejects.toThrow(ConnectionError);
  await expect(sandbox.deleteFile("a")).rejects.toThrow(ConnectionError);
  await expect(sandbox.setEnvVars({ A: "1" })).rejects.toThrow(ConnectionError);
  expect(edge.received).toHaveLength(3);
});

test("X01 errors of the API come as their class", async () => {
  const context = { command: "x", timeout: 5, stdout: "o", stderr: "e", exitCode: 124 };
  await using edge = await EdgeServer.start((_, response) => failure(response, "COMMAND_TIMEOUT", 408, context));
  const seen: Error[] = [];
  const error = await edge
    .sandbox()
    .exec("x", { onError: (error) => seen.push(error) })
    .catch((error: unknown) => error);
  expect(error).toBeInstanceOf(CommandTimeoutError);
  expect(error).toMatchObject({ context, operation: "exec", httpStatus: 408, timeout: 5, stdout: "o" });
  expect(seen).toEqual([error]);
});

test("X01 a page that is not Sandcrab's is named as such", async () => {
  await using edge = await EdgeServer.start((_, response) => void response.writeHead(200).end("<html>"));
  await expect(edge.sandbox().exec("x")).rejects.toThrow("not Sandcrab's");
});

test("S12 aborting kills the command before the call rejects", async () => {
  const abort = new AbortController();
  let killed = false;
  await using edge = await EdgeServer.start((request, response) => {
    if (request.path.endsWith("/cancel")) {
      return void setTimeout(() => {
        killed = true;
        json(response, {});
      }, 30);
    }
    abort.abort();
  });
  const error = await edge
    .sandbox()
    .exec("sleep 100", { signal: abort.signal })
    .catch((error: unknown) => error);
  expect(error).toMatchObject({ name: "AbortError" });
  expect(killed).toBe(true);
  const { execId } = JSON.parse(edge.received[0]?.body.toString() ?? "");
  expect(edge.received.map((request) => request.path)).toEqual([
    "/v1/sandboxes/edge/exec",
    `/v1/sandboxes/edge/execs/${execId}/cancel`,
  ]);
});

test("S12 an abort that overtakes its command waits until it can be killed", async () => {
  const abort = new AbortController();
  await using edge = await EdgeServer.start((request, response) => {
    if (!request.path.endsWith("/cancel")) return abort.abort(new Error("changed my mind"));
    if (edge.received.length < 4) return failure(response, "EXEC_NOT_FOUND", 404);
    json(response, {});
  });
  await expect(edge.sandbox().exec("x", { signal: abort.signal })).rejects.toThrow("changed my mind");
  expect(edge.received).toHaveLength(4);
});

test("an abort before the call makes no request", async () => {
  await using edge = await EdgeServer.start(() => {});
  const signal = AbortSignal.abort();
  await expect(edge.sandbox().exec("x", { signal })).rejects.toMatchObject({ name: "AbortError" });
  await expect(edge.sandbox().execStream("x", { signal })).rejects.toMatchObject({ name: "AbortError" });
  expect(edge.received).toHaveLength(0);
});

test("L01 options of the sandbox are sent once, before the first operation, shared by concurrent ones", async () => {
  await using edge = await EdgeServer.start((request, response) => json(response, result(request)));
  const sandbox = edge.sandbox({ sleepAfter: "5m", labels: { a: "b" }, limits: { memory: "1g" } });
  expect(edge.received).toHaveLength(0);
  await Promise.all([sandbox.exec("a"), sandbox.exec("b"), sandbox.exists("c")]);
  await sandbox.exec("d");
  expect(edge.received.map((request) => request.method)).toEqual(["PUT", "POST", "POST", "POST", "POST"]);
  expect(edge.received[0]?.path).toBe("/v1/sandboxes/edge");
  expect(JSON.parse(edge.received[0]?.body.toString() ?? "")).toEqual({
    sleepAfter: "5m",
    labels: { a: "b" },
    limits: { memory: "1g" },
  });
});

test("L01 a creation that failed is made again by the next operation, and by the first one after destroy", async () => {
  await using edge = await EdgeServer.start((request, response) => {
    if (edge.received.length === 1) return failure(response, "QUOTA_EXCEEDED", 429);
    json(response, result(request));
  });
  const sandbox = edge.sandbox({ keepAlive: true });
  await expect(sandbox.exec("a")).rejects.toMatchObject({ name: "QuotaExceededError" });
  await sandbox.exec("b");
  await sandbox.destroy();
  await sandbox.exec("c");
  const methods = edge.received.map((request) => request.method);
  expect(methods).toEqual(["PUT", "PUT", "POST", "DELETE", "PUT", "POST"]);
});

test("connect({image}) is the image of sandboxes that name none", async () => {
  await using edge = await EdgeServer.start((request, response) => json(response, result(request)));
  const connection = connect({ url: edge.url, image: "python" });
  await getSandbox(connection, "a").exec("x");
  await getSandbox(connection, "b", { image: "node" }).exec("x");
  const bodies = edge.received.filter(({ method }) => method === "PUT").map(({ body }) => JSON.parse(body.toString()));
  expect(bodies).toEqual([{ image: "python" }, { image: "node" }]);
});

test("connect({fetch}) makes every request", async () => {
  await using edge = await EdgeServer.start((request, response) => json(response, result(request)));
  const asked: string[] = [];
  const connection = connect({
    url: edge.url,
    fetch: (input, init) => {
      asked.push(input);
      return fetch(input, init);
    },
  });
  await getSandbox(connection, "a").exec("x");
  expect(asked).toEqual([`${edge.url}/v1/sandboxes/a/exec`]);
});

test.each([301, 302, 303, 307, 308])("C15 a redirect (%i) takes no command to another place", async (status) => {
  await using other = await EdgeServer.start((request, response) => json(response, result(request)));
  await using edge = await EdgeServer.start((request, response) => {
    response.writeHead(status, { location: `${other.url}${request.path}` }).end();
  });
  const secret = { env: { TOKEN: "secret" } };
  await expect(edge.sandbox().exec("x", secret)).rejects.toThrow(/redirects to http.* not followed/);
  await expect(edge.sandbox().execStream("x", secret)).rejects.toThrow(ServiceNotRespondingError);
  await expect(edge.sandbox().writeFile("/x", "secret")).rejects.toThrow(ServiceNotRespondingError);
  expect(edge.received).toHaveLength(3);
  expect(other.received).toEqual([]);
});

test("C15 an id that would name another resource is refused before any request", async () => {
  await using edge = await EdgeServer.start((request, response) => json(response, result(request)));
  const sandbox = edge.sandbox();
  for (const id of ["", ".", "..", "\ud800"]) {
    const refused = { code: "VALIDATION_FAILED", httpStatus: 400 };
    await expect((async () => sandbox.deleteCodeContext(id))()).rejects.toMatchObject(refused);
    await expect((async () => sandbox.killProcess(id))()).rejects.toMatchObject(refused);
    await expect((async () => sandbox.getProcessLogs(id))()).rejects.toMatchObject(refused);
    await expect((async () => sandbox.deleteSession(id))()).rejects.toMatchObject(refused);
  }
  expect(edge.received).toEqual([]);
  await sandbox.deleteCodeContext("a/../b");
  expect(edge.received[0]?.path).toBe("/v1/sandboxes/edge/code/contexts/a%2F..%2Fb");
});

test.each(["key of words", "a-key-with-a-line-end\n", "schlüssel", "zero\0byte"])(
  "an unusable key is refused, and not shown: %j",
  (apiKey) => {
    expect(() => connect({ url: "http://127.0.0.1:1", apiKey })).toThrow(/apiKey/);
    try {
      connect({ url: "http://127.0.0.1:1", apiKey });
    } catch (error) {
      expect(`${error} ${JSON.stringify(error)}`).not.toContain(apiKey.trim().slice(0, 8));
    }
  },
);

test("options of the original package, and unknown ones, break no sandbox", async () => {
  await using edge = await EdgeServer.start((request, response) => json(response, result(request)));
  const options = {
    transport: "http",
    containerTimeouts: { instanceGetTimeoutMS: 1 },
    mistyped: true,
    sleepAfter: "5m",
  };
  await edge.sandbox(options).exec("x");
  expect(JSON.parse(edge.received[0]?.body.toString() ?? "")).toEqual({ sleepAfter: "5m" });
  // What the server knows is sent, each of it.
  const known = {
    keepAlive: true,
    labels: { a: "b" },
    image: "python",
    limits: { openFiles: 9 },
    env: { A: "1" },
    network: "loopback",
    isolation: { ping: true },
  } as const;
  await edge.sandbox(known).exec("x");
  expect(JSON.parse(edge.received[2]?.body.toString() ?? "")).toEqual(known);
  // Nothing that the server knows: no request of its own.
  await edge.sandbox({ transport: "rpc" }).exec("x");
  expect(edge.received.map(({ method }) => method)).toEqual(["PUT", "POST", "PUT", "POST", "POST"]);
});

test("enableDefaultSession: false makes the end of a command's time a result", async () => {
  const context = { command: "sleep 9", timeout: 50, stdout: "out\n", stderr: "err", exitCode: 124 };
  await using edge = await EdgeServer.start((_, response) => failure(response, "COMMAND_TIMEOUT", 408, context));
  const sandbox = edge.sandbox({ enableDefaultSession: false });
  const late = await sandbox.exec("sleep 9", { timeout: 50 });
  expect(late).toMatchObject({ success: false, exitCode: 124, stdout: "out" });
  expect(late.stderr).toMatch(/^err\n.*timed out/);
  await expect(sandbox.exec("sleep 9", { sessionId: "s" })).rejects.toThrow(CommandTimeoutError);
  await expect(edge.sandbox().exec("sleep 9")).rejects.toThrow(CommandTimeoutError);
});
