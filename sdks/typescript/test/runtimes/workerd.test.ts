import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { type IncomingMessage, request } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, inject } from "vitest";
import { freshId, test } from "../support/sandbox.js";
import { exposeSite, siteText, startSite } from "../support/site.js";
import { talk } from "../support/talk.js";
import { EXPECTED, EXPECTED_VISITS, script, visits } from "./script.js";
import { EXPECTED_SEED, seedScript } from "./seed.js";

/**
 * One Worker that takes visitors of previews in; runs a script for a POST and answers with what it found; and opens a
 * WebSocket to port 8080 of the sandbox that is named by the first part of any other path.
 */
const worker = (seed: string) => `
import * as api from "sandcrab";
// A Worker that was written for the original exports these.
export { ContainerProxy, Sandbox } from "sandcrab";
const scripts = { script: ${script}, visits: ${visits}, seed: ${seed} };
export default {
  async fetch(request, env) {
    const Sandbox = api.connect({ url: env.URL, apiKey: env.KEY });
    try {
      const passed = await api.proxyToSandbox(request, { Sandbox });
      if (passed) return passed;
      if (request.method === "POST") {
        const { name, args } = await request.json();
        return Response.json(await scripts[name](api, env.URL, env.KEY, ...args));
      }
      const [, id, path] = request.url.match(/^http:..[^/]+.([^/]+)(.*)/);
      const inner = new Request(new URL(path, request.url), request);
      if (request.headers.has("x-fetch")) return await api.getSandbox(Sandbox, id).containerFetch(inner, 8080);
      return await api.getSandbox(Sandbox, id).wsConnect(inner, 8080);
    } catch (error) {
      return new Response(String(error.stack), { status: error.httpStatus ?? 500 });
    }
  },
};
`;

const config = (url: string, key: string) => `
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
    # Workers reach public addresses only, unless told otherwise.
    (name = "internet", network = (allow = ["public", "private", "local"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
const worker :Workerd.Worker = (
  modules = [
    (name = "worker", esModule = embed "worker.js"),
    (name = "sandcrab", esModule = embed "sandcrab.js"),
  ],
  bindings = [(name = "URL", text = ${JSON.stringify(url)}), (name = "KEY", text = ${JSON.stringify(key)})],
  compatibilityDate = "2026-01-01",
);
`;

let folder: string;
let runtime: ReturnType<typeof spawn>;
let address: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "sandcrab-workerd-"));
  await cp(fileURLToPath(new URL("../../dist/index.js", import.meta.url)), join(folder, "sandcrab.js"));
  await writeFile(join(folder, "worker.js"), worker(await seedScript()));
  await writeFile(join(folder, "config.capnp"), config(inject("url"), inject("key")));
  const workerd = createRequire(import.meta.url)("workerd").default as string;
  const stdio = ["ignore", "inherit", "inherit", "pipe"] as const;
  runtime = spawn(workerd, ["serve", "config.capnp", "--control-fd=3"], { cwd: folder, stdio: [...stdio] });
  const lines = createInterface({ input: runtime.stdio[3] as Readable });
  const [line] = (await Promise.race([
    once(lines, "line"),
    once(runtime, "exit").then(() => Promise.reject(new Error("workerd ended before it listened"))),
  ])) as [string];
  address = `http://127.0.0.1:${JSON.parse(line).port}`;
});

afterAll(async () => {
  if (runtime.exitCode === null) {
    runtime.kill("SIGTERM");
    await once(runtime, "exit");
  }
  await rm(folder, { recursive: true, force: true });
});

/** What a script found in the Worker. */
async function run(name: string, ...args: string[]): Promise<unknown> {
  const answer = await fetch(address, { method: "POST", body: JSON.stringify({ name, args }) });
  const text = await answer.text();
  expect(answer.status, text).toBe(200);
  return JSON.parse(text);
}

test("the package runs in a Worker", async () => {
  expect(await run("script", freshId(), await siteText())).toEqual(EXPECTED);
});

test("the seed's examples run in a Worker", async () => {
  expect(await run("seed", freshId())).toEqual(EXPECTED_SEED);
});

test("C04 visitors are passed on by a Worker as they are, and WebSockets too", async ({ sandbox }) => {
  const { url } = await exposeSite(sandbox, 8080, "apps.example");
  expect(await run("visits", url)).toEqual(EXPECTED_VISITS);

  const { host } = new URL(url);
  const raw = await new Promise<IncomingMessage>((resolve, reject) => {
    request(address, { path: "/gzip", headers: { host, "accept-encoding": "gzip" } }, resolve)
      .on("error", reject)
      .end();
  });
  const body = Buffer.concat(await raw.toArray());
  expect(raw.headers).toMatchObject({ "content-encoding": "gzip", "content-length": `${body.length}` });
  expect(gunzipSync(body).length).toBe(34_000);

  const headers = { host, cookie: "a=1", origin: `https://${host}`, "x-forwarded-proto": "https" };
  expect(await talk(address, "/live?b=2", headers)).toEqual([
    `{"hello":"/live?b=2","cookie":"a=1","host":"${host}"}`,
    "again",
    "4001 so long",
  ]);
  expect(await talk(address, "/live", { ...headers, origin: "https://evil.example" })).toBe("403");
  expect(await talk(address, "/none", headers)).toBe("403");
});

test("a Worker's wsConnect is what it may return to its own caller", async ({ sandbox }) => {
  await startSite(sandbox, 8080);
  expect(await talk(address, `/${sandbox.id}/live?c=3`, { cookie: "a=1", origin: "https://any.example" })).toEqual([
    '{"hello":"/live?c=3","cookie":"a=1","host":"localhost:8080"}',
    "again",
    "4001 so long",
  ]);
  expect(await talk(address, `/${sandbox.id}/none`, {})).toBe("502");
});

test("a Worker's containerFetch is what it may return to its own caller, WebSockets too", async ({ sandbox }) => {
  await startSite(sandbox, 8080);
  const headers = { "x-fetch": "1" };
  const seen = await fetch(`${address}/${sandbox.id}/seen?a`, { method: "PUT", headers });
  expect(await seen.json()).toMatchObject({ method: "PUT", url: "/seen?a", headers: { host: "localhost:8080" } });
  const packed = await fetch(`${address}/${sandbox.id}/gzip`, { headers });
  expect((await packed.text()).length).toBe(34_000);
  expect(await talk(address, `/${sandbox.id}/live`, headers)).toEqual([
    '{"hello":"/live","host":"localhost:8080"}',
    "again",
    "4001 so long",
  ]);
});
