import { spawn } from "node:child_process";
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
  /** Destroys every sandbox, ends the server, removes its data. */
  stop(): Promise<void>;
}

/** Starts `sandcrab serve` on a free port of loopback with a data directory of its own. */
export async function startServer(corsOrigin: string): Promise<RunningServer> {
  const key = "a-key-for-tests-of-the-typescript-package";
  const dataDir = await mkdtemp(join(tmpdir(), "sandcrab-ts-"));
  const args = ["--listen", "127.0.0.1:0", "--data-dir", dataDir, "--api-key", key, "--cors-origin", corsOrigin];
  const server = spawn(binary(), ["serve", "--json", ...args], { stdio: ["ignore", "pipe", "pipe"] });
  const exited = once(server, "exit");
  const log: string[] = [];
  createInterface({ input: server.stderr }).on("line", (line) => log.push(line));
  const url = await new Promise<string>((resolve, reject) => {
    const failed = (why: string) => reject(new Error(`${why}\n${log.slice(-40).join("\n")}`));
    const late = setTimeout(() => failed("sandcrab serve did not say within 60 s that it listens"), 60_000);
    createInterface({ input: server.stdout }).on("line", (line) => {
      clearTimeout(late);
      resolve(JSON.parse(line).url);
    });
    server.once("error", (error) => failed(`${binary()} did not start: ${error.message}`));
    server.once("exit", (code, signal) => failed(`sandcrab serve ended with ${code ?? signal} before it listened`));
  }).catch((error: unknown) => {
    server.kill("SIGKILL");
    throw error;
  });
  return {
    url,
    key,
    async stop() {
      // A server that ends leaves its sandboxes running, as it should.
      const headers = { authorization: `Bearer ${key}` };
      const answer = await fetch(`${url}/v1/sandboxes`, { headers });
      const { sandboxes } = (await answer.json()) as { sandboxes: { id: string }[] };
      for (const { id } of sandboxes) {
        await fetch(`${url}/v1/sandboxes/${encodeURIComponent(id)}`, { method: "DELETE", headers });
      }
      server.kill("SIGTERM");
      const late = setTimeout(() => server.kill("SIGKILL"), 10_000);
      await exited;
      clearTimeout(late);
      await rm(dataDir, { recursive: true, force: true });
      if (sandboxes.length > 0) throw new Error(`tests left sandboxes behind: ${sandboxes.map(({ id }) => id)}`);
    },
  };
}
