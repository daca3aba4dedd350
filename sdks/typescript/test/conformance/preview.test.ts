import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import { type Connection, connect, proxyToSandbox } from "sandcrab";
import { expect, inject } from "vitest";
import { connection, rejection, test } from "../support/sandbox.js";
import { exposeSite } from "../support/site.js";

const env = () => ({ Sandbox: connection() });

/** A visitor's request to a preview below a domain of one's own. */
async function visit(url: string, path: string, init?: RequestInit & { duplex?: "half" }): Promise<Response> {
  return passed(new Request(new URL(path, url), init), env());
}

async function passed(request: Request, to: { Sandbox: Connection }): Promise<Response> {
  const answer = await proxyToSandbox(request, to);
  if (answer === null) throw new Error(`${request.url} was taken for no preview`);
  return answer;
}

test("C05 only a host of a preview's form is passed on", async () => {
  for (const url of [
    "https://app.example/",
    "https://8080-box.app.example/",
    "https://8080-box-token/",
    "https://80-box-token.app.example/",
    "https://08080-box-token.app.example/",
    "https://1023-box-token.app.example/",
    "https://65536-box-token.app.example/",
    "https://8080--token.app.example/",
    "https://8080-box-.app.example/",
    "https://x.8080-box-token.app.example/",
    "https://8080-b_x-token.app.example/",
  ]) {
    expect(await proxyToSandbox(new Request(url), env()), url).toBeNull();
  }
  for (const url of ["https://8080-a-b-c-token.app.example/", "http://8080-BOX-token.localhost:3000/x"]) {
    const answer = await passed(new Request(url), env());
    expect([answer.status, (await answer.json()).code], url).toEqual([404, "INVALID_TOKEN"]);
  }
});

test("C04 proxyToSandbox passes requests on and answers back as they are", async ({ sandbox }) => {
  const { url } = await exposeSite(sandbox, 8080, "apps.example");
  const headers = {
    authorization: "Bearer of-the-visitor",
    cookie: "a=1",
    connection: "keep-alive, x-hop",
    "x-hop": "1",
    "x-sandcrab-key": "forged",
    "x-sandcrab-preview": "8080-other-token.apps.example",
    "x-forwarded-for": "203.0.113.9",
    te: "trailers",
  };
  const seen = await (await visit(url, "/seen?q=%2F&r", { method: "DELETE", headers })).json();
  const { host } = new URL(url);
  expect(seen).toMatchObject({
    method: "DELETE",
    url: "/seen?q=%2F&r",
    headers: {
      host,
      authorization: "Bearer of-the-visitor",
      cookie: "a=1",
      "x-forwarded-for": "203.0.113.9",
      "x-forwarded-host": host,
      "x-forwarded-proto": "https",
    },
  });
  for (const name of Object.keys(seen.headers)) expect(name).not.toMatch(/sandcrab|x-hop|^te$/);

  const login = await visit(url, "/login");
  expect([login.status, login.headers.get("location"), await login.text()]).toEqual([302, "/home", "go"]);
  expect(login.headers.getSetCookie()).toEqual(["a=1; Path=/", "b=2; HttpOnly"]);
  expect([(await visit(url, "/nothing")).status, (await visit(url, "/none")).status]).toEqual([204, 404]);
});

test("C04 bytes pass as they were encoded, under headers that say so", async ({ sandbox }) => {
  const { url } = await exposeSite(sandbox, 8080, "apps.example");
  for (const [encoding, decode] of [
    ["gzip", gunzipSync],
    ["br", brotliDecompressSync],
  ] as const) {
    const answer = await visit(url, `/${encoding}`, { headers: { "accept-encoding": encoding } });
    const bytes = Buffer.from(await answer.arrayBuffer());
    expect([...answer.headers.keys()].filter((name) => name.startsWith("x-sandcrab"))).toEqual([]);
    expect(answer.headers.get("content-encoding")).toBe(encoding);
    expect(answer.headers.get("content-length")).toBe(String(bytes.length));
    expect(decode(bytes).toString()).toMatch(/^(a text that is worth compressing, ){1000}$/);
    const head = await visit(url, `/${encoding}`, { method: "HEAD" });
    expect([head.headers.get("content-encoding"), head.headers.get("content-length"), head.body]).toEqual([
      encoding,
      String(bytes.length),
      null,
    ]);
  }
});

test("bodies stream both ways while the other is not at its end", async ({ sandbox }) => {
  const { url } = await exposeSite(sandbox, 8080, "apps.example");
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const writer = writable.getWriter();
  const answering = visit(url, "/echo", { method: "POST", body: readable, duplex: "half" });
  const piece = (text: string) => new TextEncoder().encode(text);
  await writer.write(piece("one"));
  const answer = await answering;
  const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
  const next = async () => new TextDecoder().decode((await reader.read()).value);
  expect([answer.status, answer.headers.get("x-length"), await next()]).toEqual([201, "none", "one"]);
  await writer.write(piece("two"));
  expect(await next()).toBe("two");
  await writer.close();
  expect(await reader.read()).toEqual({ done: true, value: undefined });

  // A length that is known is told to what runs in the sandbox.
  const sized = await visit(url, "/echo", { method: "PUT", body: "12345", headers: { "content-length": "5" } });
  expect([sized.headers.get("x-length"), await sized.text()]).toEqual(["5", "12345"]);
  const large = new Uint8Array(8 << 20).fill(7);
  const body = new ReadableStream({
    start(controller) {
      for (let at = 0; at < large.length; at += 65_536) controller.enqueue(large.subarray(at, at + 65_536));
      controller.close();
    },
  });
  const echoed = await visit(url, "/echo", { method: "POST", body, duplex: "half" });
  expect(Buffer.compare(Buffer.from(await echoed.arrayBuffer()), large)).toBe(0);
});

test("a visitor who goes takes the request along, and one whose request was read is told", async ({ sandbox }) => {
  const { url } = await exposeSite(sandbox, 8080, "apps.example");
  const leaving = new AbortController();
  const answer = await visit(url, "/endless", { signal: leaving.signal });
  const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
  expect(new TextDecoder().decode((await reader.read()).value)).toBe("data: tick\n\n");
  const reading = rejection(reader.read());
  leaving.abort();
  expect(await reading).toMatchObject({ name: "AbortError" });
  expect(await (await visit(url, "/left")).text()).toBe("left");
  expect(await rejection(visit(url, "/seen", { signal: AbortSignal.abort("gone") }))).toBe("gone");

  const read = new Request(new URL("/echo", url), { method: "POST", body: "once" });
  await read.text();
  expect(await rejection(proxyToSandbox(read, env()))).toMatchObject({
    code: "VALIDATION_FAILED",
    context: { validationErrors: [{ field: "request" }] },
  });
});

test("X01 a visitor is told in JSON why there is no answer, and nothing of the way to it", async ({ sandbox }) => {
  const { url } = await sandbox.exposePort(8080, { hostname: "apps.example" });
  const closed = await visit(url, "/");
  expect([closed.status, await closed.json()]).toMatchObject([
    502,
    { code: "SERVICE_NOT_RESPONDING", context: { port: 8080 } },
  ]);

  const nobody = createServer().listen(0, "127.0.0.1");
  await once(nobody, "listening");
  const dead = `http://127.0.0.1:${(nobody.address() as AddressInfo).port}`;
  nobody.close();
  await once(nobody, "close");
  const unreachable = await passed(new Request(url), {
    Sandbox: connect({ url: dead, apiKey: "a-secret-key" }),
  });
  expect([unreachable.status, unreachable.headers.get("cache-control")]).toEqual([502, "no-store"]);
  const told = await unreachable.text();
  expect(JSON.parse(told)).toMatchObject({ code: "SERVICE_NOT_RESPONDING", httpStatus: 502, operation: "preview" });
  expect(told).not.toMatch(/127\.0\.0\.1|secret|ECONN/);

  const keyless = await passed(new Request(url), {
    Sandbox: connect({ url: inject("url"), apiKey: "wrong-key" }),
  });
  expect([keyless.status, await keyless.json()]).toMatchObject([401, { code: "UNAUTHORIZED" }]);

  const socket = await visit(url, "/live", { headers: { upgrade: "websocket", connection: "upgrade" } });
  expect([socket.status, await socket.json()]).toMatchObject([
    502,
    { suggestion: expect.stringContaining("proxyUpgrade") },
  ]);
});
