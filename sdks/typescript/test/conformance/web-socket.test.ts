import { getSandbox, ServiceNotRespondingError, ValidationFailedError } from "sandcrab";
import { expect, vi } from "vitest";
import { WebSocket } from "ws";
import { connection, rejection, test } from "../support/sandbox.js";
import { startSite } from "../support/site.js";
import { talk } from "../support/talk.js";

test("C05 a WebSocket's URL is good for one socket to one path, without a key", async ({ sandbox }) => {
  await startSite(sandbox, 8080);
  const url = await sandbox.webSocketUrl(8080, "/live?a=%2F&b");
  expect(url).toMatch(/^ws:\/\/127\.0\.0\.1:\d+\/v1\/sandboxes\/.*\/ports\/8080\/connect\?path=.*&ticket=\w{32}$/);
  const { pathname, search } = new URL(url);
  const heard = ['{"hello":"/live?a=%2F&b","host":"localhost:8080"}', "again", "4001 so long"];
  expect(await talk(url, pathname + search, { origin: "https://any.page" })).toEqual(heard);
  expect(await talk(url, pathname + search, {})).toBe("401");
  expect(await rejection(sandbox.webSocketUrl(8080, "live"))).toMatchObject({
    code: "VALIDATION_FAILED",
    context: { validationErrors: [{ field: "path" }] },
  });
});

test("wsConnect opens a WebSocket in Node with a class that is given, and agrees on a protocol", async ({
  sandbox,
}) => {
  await startSite(sandbox, 8080);
  const withSockets = getSandbox(connection(undefined, { WebSocket }), sandbox.id);
  const headers = { "sec-websocket-protocol": "one, two" };
  const answer = await withSockets.wsConnect(new Request("http://host/live", { headers }), 8080);
  expect(answer).toBeInstanceOf(Response);
  expect([answer.status, answer.webSocket.protocol, answer.webSocket.readyState]).toEqual([101, "two", 1]);
  const closed = new Promise((resolve) => answer.webSocket.addEventListener("close", resolve));
  answer.webSocket.close(4000, "enough");
  answer.webSocket.accept();
  expect(await closed).toMatchObject({ code: 4000, reason: "enough", wasClean: true });
  expect(answer.webSocket.readyState).toBe(3);
});

test("what comes before accept() is kept, also the end", async ({ sandbox }) => {
  await startSite(sandbox, 8080);
  const withSockets = getSandbox(connection(undefined, { WebSocket }), sandbox.id);
  const { webSocket } = await withSockets.wsConnect(new Request("http://host/live"), 8080);
  webSocket.send("again");
  webSocket.send("bye");
  await expect.poll(() => webSocket.readyState).toBe(3);
  const heard: unknown[] = [];
  webSocket.addEventListener("message", ({ data }) => heard.push(data));
  webSocket.addEventListener("close", ({ code, reason }) => heard.push(`${code} ${reason}`));
  expect(heard).toEqual([]);
  webSocket.accept();
  expect(heard).toEqual(['{"hello":"/live","host":"localhost:8080"}', "again", "4001 so long"]);
});

test("X01 why no WebSocket opens is said, also where the platform has none", async ({ sandbox }) => {
  await startSite(sandbox, 8080);
  const withSockets = getSandbox(connection(undefined, { WebSocket }), sandbox.id);
  for (const [path, port] of [
    ["/none", 8080],
    ["/live", 8081],
  ] as const) {
    const failed = await rejection(withSockets.wsConnect(new Request(`http://host${path}`), port));
    expect(failed).toBeInstanceOf(ServiceNotRespondingError);
    expect(failed).toMatchObject({
      operation: "wsConnect",
      context: { port },
      message: expect.stringContaining("502"),
    });
  }
  const live = new Request("http://host/live");
  expect(await rejection(withSockets.wsConnect(live, 80))).toMatchObject({
    code: "INVALID_PORT_NUMBER",
    context: { port: 80 },
  });
  expect(await rejection(withSockets.wsConnect(live, 80.5))).toBeInstanceOf(ValidationFailedError);
  const gone = new Request(live, { signal: AbortSignal.abort("gone") });
  expect(await rejection(withSockets.wsConnect(gone, 8080))).toBe("gone");

  vi.stubGlobal("WebSocket", undefined);
  const without = await rejection(sandbox.wsConnect(live, 8080)).finally(() => vi.unstubAllGlobals());
  expect(without).toMatchObject({ code: "VALIDATION_FAILED", message: expect.stringContaining("package ws") });
});
