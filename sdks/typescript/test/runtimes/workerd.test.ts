import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { freshId } from "../support/sandbox.js";
import { EXPECTED, script } from "./script.js";

/** One Worker that runs the script for each request and answers with what it found. */
const worker = `
import * as api from "sandcrab";
const script = ${script};
export default {
  async fetch(request, env) {
    try {
      return Response.json(await script(api, env.URL, env.KEY, await request.text()));
    } catch (error) {
      return new Response(String(error.stack), { status: 500 });
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
  await writeFile(join(folder, "worker.js"), worker);
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

test("the package runs in a Worker", async () => {
  const answer = await fetch(address, { method: "POST", body: freshId() });
  const text = await answer.text();
  expect(answer.status, text).toBe(200);
  expect(JSON.parse(text)).toEqual(EXPECTED);
});
