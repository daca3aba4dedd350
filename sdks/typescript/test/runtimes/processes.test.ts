import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, inject, test } from "vitest";
import { freshId } from "../support/sandbox.js";
import { EXPECTED, script } from "./script.js";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** A runtime that npm brings for Linux on x86-64. */
function installed(path: string): string {
  const file = here(`../../node_modules/${path}`);
  if (!existsSync(file)) throw new Error(`no ${file}: npm ci installs it on Linux x86-64, which this test needs`);
  return file;
}

/** Runs the script in a process of its own, as a program that uses the package would. */
async function run(
  runtime: string,
  flags: string[],
  load: (dist: string) => string,
  extension = "mjs",
): Promise<unknown> {
  const folder = await mkdtemp(join(tmpdir(), "sandcrab-runtime-"));
  try {
    const args = JSON.stringify([inject("url"), inject("key"), freshId()]);
    const program = `${load(here("../../dist/"))}.then((api) => (${script})(api, ...${args})).then((found) => console.log(JSON.stringify(found)));`;
    const file = join(folder, `program.${extension}`);
    await writeFile(file, program);
    const { stdout } = await promisify(execFile)(runtime, [...flags, file], { timeout: 25_000 });
    return JSON.parse(stdout);
  } finally {
    await rm(folder, { recursive: true });
  }
}

const esm = (dist: string) => `import("${dist}index.js")`;
const cjs = (dist: string) => `Promise.resolve(require("${dist}index.cjs"))`;

test("the ES module runs in this Node", async () => {
  expect(await run(process.execPath, [], esm)).toEqual(EXPECTED);
});

test("the CommonJS module runs in this Node", async () => {
  expect(await run(process.execPath, [], cjs, "cjs")).toEqual(EXPECTED);
});

test("the package runs in Bun", async () => {
  expect(await run(installed("@oven/bun-linux-x64/bin/bun"), ["run"], esm)).toEqual(EXPECTED);
});

test("the package runs in Deno, with no right but the network", async () => {
  const flags = ["run", "--quiet", "--no-remote", "--allow-net=127.0.0.1"];
  expect(await run(installed("@deno/linux-x64-glibc/deno"), flags, esm)).toEqual(EXPECTED);
});
