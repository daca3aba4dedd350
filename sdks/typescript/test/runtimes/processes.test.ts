import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, inject, test } from "vitest";
import { freshId, test as sandboxTest } from "../support/sandbox.js";
import { exposeSite, siteText } from "../support/site.js";
import { EXPECTED, EXPECTED_VISITS, script, visits } from "./script.js";
import { EXPECTED_SEED, seedScript } from "./seed.js";

const BUN = "@oven/bun-linux-x64/bin/bun";
const DENO = "@deno/linux-x64-glibc/deno";
const DENO_FLAGS = ["run", "--quiet", "--no-remote", "--allow-net=127.0.0.1"];

/** The releases of Node that npm brings for these tests: each has its package. */
const NODES = ["20", "21", "22", "23", "24"];

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** A runtime that npm brings for Linux on x86-64. */
function installed(path: string): string {
  const file = here(`../../node_modules/${path}`);
  if (!existsSync(file)) throw new Error(`no ${file}: npm ci installs it on Linux x86-64, which this test needs`);
  return file;
}

function node(release: string): string {
  const file = here(`nodes/node_modules/node-${release}/bin/node`);
  if (!existsSync(file)) throw new Error(`no ${file}: npm ci in ${here("nodes")} installs it on Linux x86-64`);
  return file;
}

/** Runs a script in a process of its own, as a program that uses the package would. */
async function run(runtime: string, flags: string[], program: string, extension = "mjs"): Promise<unknown> {
  const folder = await mkdtemp(join(tmpdir(), "sandcrab-runtime-"));
  try {
    const file = join(folder, `program.${extension}`);
    await writeFile(file, program);
    const { stdout } = await promisify(execFile)(runtime, [...flags, file], { timeout: 25_000 });
    return JSON.parse(stdout);
  } finally {
    await rm(folder, { recursive: true });
  }
}

const esm = `import("${here("../../dist/index.js")}")`;
const cjs = `Promise.resolve(require("${here("../../dist/index.cjs")}"))`;
const print = "then((found) => console.log(JSON.stringify(found)))";
/** Node 20 has no WebSocket of its own. */
const ws = `typeof WebSocket === "undefined" ? import("${here("../../node_modules/ws/wrapper.mjs")}") : {}`;

/** The program that runs the script and prints what it found. */
async function everything(load: string): Promise<string> {
  const args = JSON.stringify([inject("url"), inject("key"), freshId(), await siteText()]);
  return `Promise.all([${load}, ${ws}]).then(([api, ws]) => (${script})(api, ...${args}, ws.WebSocket)).${print};`;
}

/** The program that runs the seed's examples and prints what came of them. */
async function seed(): Promise<string> {
  const args = JSON.stringify([inject("url"), inject("key"), freshId()]);
  return `${esm}.then((api) => (${await seedScript()})(api, ...${args})).${print};`;
}

describe.each(NODES)("Node %s", (release) => {
  test("runs the package: sessions, commands, streams, files, errors, WebSockets", async () => {
    const version = await run(node(release), [], "console.log(JSON.stringify(process.version))");
    expect(version).toMatch(new RegExp(`^v${release}\\.`));
    expect(await run(node(release), [], await everything(esm))).toEqual(EXPECTED);
  });

  test("runs the seed's examples", async () => {
    expect(await run(node(release), [], await seed())).toEqual(EXPECTED_SEED);
  });
});

test("the ES module runs in this Node", async () => {
  expect(await run(process.execPath, [], await everything(esm))).toEqual(EXPECTED);
});

test("the CommonJS module runs in this Node", async () => {
  expect(await run(process.execPath, [], await everything(cjs), "cjs")).toEqual(EXPECTED);
});

test("the package runs in Bun", async () => {
  expect(await run(installed(BUN), ["run"], await everything(esm))).toEqual(EXPECTED);
});

test("the package runs in Deno, with no right but the network", async () => {
  expect(await run(installed(DENO), DENO_FLAGS, await everything(esm))).toEqual(EXPECTED);
});

test("the seed's examples run in Bun", async () => {
  expect(await run(installed(BUN), ["run"], await seed())).toEqual(EXPECTED_SEED);
});

test("the seed's examples run in Deno, with no right but the network", async () => {
  expect(await run(installed(DENO), DENO_FLAGS, await seed())).toEqual(EXPECTED_SEED);
});

sandboxTest("C04 visitors are passed on as they are by Node, Bun and Deno", async ({ sandbox }) => {
  const { url } = await exposeSite(sandbox, 8080, "apps.example");
  const args = JSON.stringify([inject("url"), inject("key"), url]);
  const program = `${esm}.then((api) => (${visits})(api, ...${args})).${print};`;
  expect(await run(process.execPath, [], program)).toEqual(EXPECTED_VISITS);
  expect(await run(installed(BUN), ["run"], program)).toEqual(EXPECTED_VISITS);
  expect(await run(installed(DENO), DENO_FLAGS, program)).toEqual(EXPECTED_VISITS);
});
