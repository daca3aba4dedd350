// The dev server of a project runs in a sandbox, a browser shows it, and what is edited here reaches it at once.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, watch } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";

/** Where the project lies in the sandbox. */
export const HOME = "/workspace/app";
/** What changes here need not reach the sandbox. */
const LEFT_OUT = [".git", "node_modules"];
/** Editors write in steps: a file is whole when nothing has happened to it for so long. */
const SETTLED_MS = 30;

/**
 * Copies the project in `folder` into the sandbox, starts its dev server, and exposes it. Everybody who knows the URL can
 * see it, until the sandbox is destroyed or `sandbox.unexposePort(port)`.
 *
 * @param {import("sandcrab").Sandbox} sandbox
 * @param {string} folder with its node_modules: a sandbox reaches no registry.
 * @param {{ command?: string, port?: number, hostname: string,
 *   onOutput?: (stream: "stdout" | "stderr", data: string) => void }} options `hostname` is the URL's domain, with its port.
 */
export async function startDevServer(sandbox, folder, { command = "npm run dev", port = 5173, hostname, onOutput }) {
  await upload(sandbox, folder);
  const server = await sandbox.startProcess(command, { cwd: HOME, processId: "dev-server", onOutput });
  // It answers before anyone is told where.
  await server.waitForPort(port, { timeout: 60_000 }).catch(async (cause) => {
    const { stdout, stderr } = await server.getLogs();
    throw new Error(`${cause.message}; it said:\n${stdout}${stderr}`, { cause });
  });
  const { url } = await sandbox.exposePort(port, { hostname });
  return { url, server };
}

/**
 * Carries changes of the project into the sandbox as they are made, until `signal` aborts; its dev server sees them as if
 * they were made there. Files that lie in `folder` itself, or below what are directories of it now, are watched from the
 * moment that this returns its promise.
 */
export function mirror(sandbox, folder, signal) {
  return new Promise((resolve, reject) => {
    const due = new Map();
    let carrying = Promise.resolve();
    const changed = (file) => {
      clearTimeout(due.get(file));
      const settled = () => {
        due.delete(file);
        carrying = carrying.then(() => carry(sandbox, folder, file)).catch(reject);
      };
      due.set(file, setTimeout(settled, SETTLED_MS));
    };
    const watched = (name, recursive) => {
      const told = (_, inner) => inner !== null && !LEFT_OUT.includes(inner) && changed(join(name, inner));
      watch(join(folder, name), { recursive, signal }, told).on("error", reject);
    };
    watched("", false);
    // Watching all of it at once would watch each file of node_modules.
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (entry.isDirectory() && !LEFT_OUT.includes(entry.name)) watched(entry.name, true);
    }
    signal.addEventListener("abort", () => {
      for (const timer of due.values()) clearTimeout(timer);
      carrying.then(resolve);
    });
  });
}

async function carry(sandbox, folder, file) {
  const path = `${HOME}/${file}`;
  try {
    await sandbox.writeFile(path, await readFile(join(folder, file)));
  } catch (error) {
    // A new directory comes with its first file.
    if (error.code === "EISDIR") return;
    if (error.code !== "ENOENT") throw error;
    // In a variable no name can be more than a name.
    await sandbox.exec('rm -rf -- "$GONE"', { env: { GONE: path } });
  }
}

async function upload(sandbox, folder) {
  const tar = spawn("tar", ["-cz", "--exclude=./.git", "-C", folder, "."], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(tar, "close");
  await sandbox.writeFile("/tmp/app.tar.gz", Readable.toWeb(tar.stdout));
  const [code] = await ended;
  if (code !== 0) throw new Error(`tar of ${folder} ended with ${code}`);
  const unpack = `mkdir -p ${HOME} && tar -xzf /tmp/app.tar.gz --no-same-owner -C ${HOME} && rm /tmp/app.tar.gz`;
  const { success, stderr } = await sandbox.exec(unpack);
  if (!success) throw new Error(`the project could not be unpacked: ${stderr}`);
}
