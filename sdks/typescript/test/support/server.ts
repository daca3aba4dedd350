import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** The binary under test: `SANDCRAB_BIN`, else cargo's debug build of this checkout. */
export function binary(): string {
  const built = "../../../../target/x86_64-unknown-linux-gnu/debug/sandcrab";
  const path = process.env.SANDCRAB_BIN || fileURLToPath(new URL(built, import.meta.url));
  if (!existsSync(path)) {
    throw new Error(`no server to test against at ${path}: run \`cargo build\`, or name a binary in SANDCRAB_BIN`);
  }
  return path;
}

export interface RunningServer {
  url: string;
  key: string;
  /** Kills the server as a crash would and starts another on the same address and data. */
  crash(): Promise<void>;
  /** Destroys every sandbox, ends the server, removes its data. */
  stop(): Promise<void>;
}

/** Starts `sandcrab serve` on a free port of loopback with a data directory of its own. */
export async function startServer(corsOrigin: string): Promise<RunningServer> {
  const key = "a-key-for-tests-of-the-typescript-package";
  const dataDir = await mkdtemp(join(tmpdir(), "sandcrab-ts-"));
  const options = ["--data-dir", dataDir, "--api-key", key, "--cors-origin", corsOrigin];
  let { server, url } = await launch(["--listen", "127.0.0.1:0", ...options]);
  return {
    url,
    key,
    async crash() {
      server.kill("SIGKILL");
      await once(server, "exit");
      ({ server } = await launch(["--listen", new URL(url).host, ...options]));
    },
    async stop() {
      const left = await destroyAll(url, key);
      server.kill("SIGTERM");
      const late = setTimeout(() => server.kill("SIGKILL"), 10_000);
      if (server.exitCode === null && server.signalCode === null) await once(server, "exit");
      clearTimeout(late);
      await rm(dataDir, { recursive: true, force: true });
      if (left.length > 0) throw new Error(`tests left sandboxes behind: ${left}`);
    },
  };
}

async function launch(options: string[]): Promise<{ server: ChildProcess; url: string }> {
  const server = spawn(binary(), ["serve", "--json", ...options], { stdio: ["ignore", "pipe", "pipe"] });
  const log: string[] = [];
  createInterface({ input: server.stderr }).on("line", (line) => log.push(line));
  try {
    const url = await new Promise<string>((resolve, reject) => {
      const failed = (why: string) => reject(new Error(`${why}\n${log.slice(-40).join("\n")}`));
      const late = setTimeout(() => failed("sandcrab serve did not say within 60 s that it listens"), 60_000);
      createInterface({ input: server.stdout }).on("line", (line) => {
        clearTimeout(late);
        resolve(JSON.parse(line).url);
      });
      server.once("error", (error) => failed(`${binary()} did not start: ${error.message}`));
      server.once("exit", (code, signal) => failed(`sandcrab serve ended with ${code ?? signal} before it listened`));
    });
    return { server, url };
  } catch (error) {
    server.kill("SIGKILL");
    throw error;
  }
}

/** A server that ends leaves its sandboxes running, as it should; tests must not. */
async function destroyAll(url: string, key: string): Promise<string[]> {
  const headers = { authorization: `Bearer ${key}` };
  const answer = await fetch(`${url}/v1/sandboxes`, { headers });
  const { sandboxes } = (await answer.json()) as { sandboxes: { id: string }[] };
  for (const { id } of sandboxes) {
    await fetch(`${url}/v1/sandboxes/${encodeURIComponent(id)}`, { method: "DELETE", headers });
  }
  return sandboxes.map(({ id }) => id);
}
