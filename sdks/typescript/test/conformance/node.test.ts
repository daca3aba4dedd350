import { once } from "node:events";
import { createServer, type IncomingMessage, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { gunzipSync } from "node:zlib";
import { connect } from "sandcrab";
import { proxyRequest, proxyUpgrade } from "sandcrab/node";
import { expect } from "vitest";
import { test as base, connection } from "../support/sandbox.js";
import { exposeSite } from "../support/site.js";
import { talk } from "../support/talk.js";

/** A server of one's own that takes visitors in, as its address. */
const test = base.extend<{ entry: string; deadEntry: string }>({
  entry: async ({}, use) => serve({ Sandbox: connection() }, use),
  // Port 1 is nobody's.
  deadEntry: async ({}, use) => serve({ Sandbox: connect({ url: "http://127.0.0.1:1", apiKey: "a-secret-key" }) }, use),
});

async function serve(env: Parameters<typeof proxyRequest>[2], use: (entry: string) => Promise<void>): Promise<void> {
  const server: Server = createServer((request, response) => {
    if (!proxyRequest(request, response, env)) response.end("my own page");
  });
  server.on("upgrade", (request, socket, head) => {
    if (!proxyUpgrade(request, socket, head, env)) socket.end("HTTP/1.1 404 Not Found\r\n\r\n");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  server.closeAllConnections();
  server.close();
  await once(server, "close");
}

/** What a visitor with this `Host` gets. */
async function visit(entry: string, host: string, path: string, body?: string, headers = {}) {
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    const options = { path, method: body === undefined ? "GET" : "POST", headers: { host, ...headers } };
    request(entry, options, resolve).on("error", reject).end(body);
  });
  return { status: answer.statusCode, headers: answer.headers, body: Buffer.concat(await answer.toArray()) };
}

test("C04 C07 a server of Node's passes visitors on, and keeps its own pages", async ({ sandbox, entry }) => {
  const { url } = await exposeSite(sandbox, 8080, "apps.example");
  const { host } = new URL(url);
  expect(String((await visit(entry, "apps.example", "/seen")).body)).toBe("my own page");
  const forged = {
    "x-sandcrab-key": "forged",
    "x-forwarded-for": "203.0.113.9",
    cookie: "a=1",
    connection: "x-hop",
    "x-hop": "1",
  };
  const seen = JSON.parse(String((await visit(entry, host, "/seen?q=%2F", undefined, forged)).body));
  expect(seen).toMatchObject({
    url: "/seen?q=%2F",
    headers: { host, cookie: "a=1", "x-forwarded-for": "203.0.113.9, 127.0.0.1", "x-forwarded-proto": "http" },
  });
  expect(Object.keys(seen.headers).join()).not.toMatch(/sandcrab|x-hop/);
  const login = await visit(entry, host, "/login");
  expect([login.status, login.headers.location]).toEqual([302, "/home"]);
  expect(login.headers["set-cookie"]).toEqual(["a=1; Path=/", "b=2; HttpOnly"]);
  const packed = await visit(entry, host, "/gzip");
  expect([packed.headers["content-encoding"], gunzipSync(packed.body).length]).toEqual(["gzip", 34_000]);
  const echoed = await visit(entry, host, "/echo", "12345");
  expect([echoed.status, echoed.headers["x-length"], String(echoed.body)]).toEqual([201, "5", "12345"]);
  // A body of a request that seldom has one stays a body.
  const chunked = request(entry, {
    method: "DELETE",
    path: "/echo",
    headers: { host, "transfer-encoding": "chunked" },
  });
  chunked.end("GET /seen HTTP/1.1\r\nhost: x\r\n\r\n");
  const [kept] = (await once(chunked, "response")) as [IncomingMessage];
  expect(String(Buffer.concat(await kept.toArray()))).toBe("GET /seen HTTP/1.1\r\nhost: x\r\n\r\n");
  // A target that is no path leads nowhere else.
  expect((await visit(entry, host, "http://127.0.0.1:1/seen")).status).toBe(404);
});

test("C04 a visitor who leaves Node's server leaves the sandbox's too", async ({ sandbox, entry }) => {
  const { host } = new URL((await exposeSite(sandbox, 8080, "apps.example")).url);
  const endless = request(entry, { path: "/endless", headers: { host } }).end();
  const [answer] = (await once(endless, "response")) as [IncomingMessage];
  expect(String((await once(answer, "data"))[0])).toBe("data: tick\n\n");
  answer.destroy();
  expect(String((await visit(entry, host, "/left")).body)).toBe("left");
});

test("C05 a server of Node's passes WebSockets on, those of foreign pages not", async ({ sandbox, entry }) => {
  const { host } = new URL((await exposeSite(sandbox, 8080, "apps.example")).url);
  const headers = { host, cookie: "a=1", origin: `http://${host}` };
  expect(await talk(entry, "/live?b=2", headers)).toEqual([
    `{"hello":"/live?b=2","cookie":"a=1","host":"${host}"}`,
    "again",
    "4001 so long",
  ]);
  const behindTls = { ...headers, origin: `https://${host}`, "x-forwarded-proto": "https" };
  expect(await talk(entry, "/live", behindTls, ["one", "two"])).toHaveLength(3);
  expect(await talk(entry, "/live", { ...headers, origin: "http://evil.example" })).toBe("403");
  expect(await talk(entry, "/none", headers)).toBe("403");
  expect(await talk(entry, "/live", { host: "apps.example" })).toBe("404");
});

test("X01 a visitor of Node's server is told that there is no answer, and nothing of the way", async ({
  deadEntry,
}) => {
  const host = "8080-box-token.apps.example";
  const told = await visit(deadEntry, host, "/");
  expect([told.status, JSON.parse(String(told.body))]).toMatchObject([502, { code: "SERVICE_NOT_RESPONDING" }]);
  // Also while the visitor still sends.
  const upload = request(deadEntry, { method: "POST", path: "/", headers: { host } });
  upload.write("a part");
  const [early] = (await once(upload, "response")) as [IncomingMessage];
  expect(early.statusCode).toBe(502);
  upload.destroy();
  expect(String(told.body)).not.toMatch(/127\.0\.0\.1|secret|ECONN/);
  expect(await talk(deadEntry, "/live", { host })).toBe("502");
});
