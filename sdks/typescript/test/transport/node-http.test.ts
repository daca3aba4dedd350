import { setTimeout as pause } from "node:timers/promises";
import { expect, test, vi } from "vitest";
import { connect, getSandbox } from "../../src/index.js";
import { EdgeServer, json, result } from "./server.js";

/** How a request came: Node's `fetch` says so of itself, its own HTTP client does not. */
const byFetch = (request: { headers: Record<string, unknown> } | undefined) =>
  "sec-fetch-mode" in (request?.headers ?? {});

test("what is no stream goes by Node's own client, and a stream by fetch", async () => {
  await using edge = await EdgeServer.start((request, response) => {
    if (request.path.endsWith("/stream"))
      return void response.writeHead(200, { "content-type": "text/event-stream" }).end();
    json(response, result(request));
  });
  const sandbox = edge.sandbox();
  await sandbox.exec("true");
  await (await sandbox.execStream("true")).cancel();
  expect(edge.received.map(byFetch)).toEqual([false, true]);
});

test("whoever gives a fetch, or replaces the platform's, sees every request", async () => {
  await using edge = await EdgeServer.start((request, response) => json(response, result(request)));
  const given = vi.fn(fetch);
  await getSandbox(connect({ url: edge.url, fetch: given }), "edge").exec("true");
  expect(given).toHaveBeenCalledTimes(1);
  const sandbox = edge.sandbox();
  const replaced = vi.spyOn(globalThis, "fetch");
  await sandbox.exec("true");
  expect(replaced).toHaveBeenCalledTimes(1);
  replaced.mockRestore();
  await sandbox.exec("true");
  expect(edge.received.map(byFetch)).toEqual([true, true, false]);
});

test("connections are used again", async () => {
  await using edge = await EdgeServer.start((request, response) => json(response, result(request)));
  const sandbox = edge.sandbox();
  for (let number = 0; number < 5; number++) await sandbox.exec("true");
  expect(new Set(edge.received.map((request) => request.peer)).size).toBe(1);
});

test("S02 characters that are cut on their way come whole", async () => {
  await using edge = await EdgeServer.start(async (request, response) => {
    const bytes = Buffer.from(JSON.stringify(result(request, { stdout: "aé€😀" })));
    response.writeHead(200, { "content-type": "application/json" });
    for (const byte of bytes) {
      response.write(Buffer.of(byte));
      await pause(0);
    }
    response.end();
  });
  expect((await edge.sandbox().exec("true")).stdout).toBe("aé€😀");
});

test("an aborted call rejects with the signal's reason, before and while it waits", async () => {
  const control = new AbortController();
  const reason = new Error("no longer wanted");
  await using edge = await EdgeServer.start((request, response) => {
    // The cancellation of the command is answered.
    if (request.path.includes("/cancel")) return json(response, {});
    control.abort(reason);
  });
  const sandbox = edge.sandbox();
  await expect(sandbox.exec("sleep 100", { signal: control.signal })).rejects.toBe(reason);
  await expect(sandbox.exec("sleep 100", { signal: control.signal })).rejects.toBe(reason);
});

test("a server below a path, and on IPv6, is found", async () => {
  await using edge = await EdgeServer.start((request, response) => json(response, result(request)), "::1");
  await getSandbox(connect({ url: `${edge.url}/below/` }), "edge").exec("true");
  expect(edge.received[0]?.path).toBe("/below/v1/sandboxes/edge/exec");
});
