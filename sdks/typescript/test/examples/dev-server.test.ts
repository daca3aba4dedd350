import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ProcessExitedBeforeReadyError } from "sandcrab";
import { expect, inject } from "vitest";
import { HOME, mirror, startDevServer } from "../../../../examples/dev-server/dev-server.js";
import { rejection, test } from "../support/sandbox.js";
import { visit } from "../support/visit.js";
import { viteProject } from "../support/vite.js";

test("dev-server: what is edited here is what the server in the sandbox shows", async ({ sandbox }) => {
  await using project = await viteProject();
  const hostname = `localhost:${new URL(inject("url")).port}`;
  const said: string[] = [];
  const { url } = await startDevServer(sandbox, project.folder, {
    hostname,
    onOutput: (_stream: string, data: string) => said.push(data),
  });
  await expect.poll(() => said.join("")).toContain("ready in");
  const stop = new AbortController();
  const mirroring = mirror(sandbox, project.folder, stop.signal);

  expect((await visit(url, "/")).body).toContain("/@vite/client");
  await writeFile(join(project.folder, "src/text.js"), 'export const text = "edited here";\n');
  await expect.poll(() => visit(url, "/src/text.js")).toMatchObject({ body: expect.stringContaining("edited here") });
  await writeFile(join(project.folder, "a 'name' $(of) its own"), "new");
  const copy = `${HOME}/a 'name' $(of) its own`;
  await expect.poll(async () => (await sandbox.exists(copy)).exists).toBe(true);
  await rm(join(project.folder, "a 'name' $(of) its own"));
  await expect.poll(async () => (await sandbox.exists(copy)).exists).toBe(false);
  stop.abort();
  await mirroring;
});

test("dev-server: a server that does not start is an error that says so", async ({ sandbox }) => {
  await using project = await viteProject();
  await rm(join(project.folder, "node_modules"), { recursive: true });
  const failed = await rejection(startDevServer(sandbox, project.folder, { hostname: "localhost" }));
  expect(failed).toMatchObject({
    cause: expect.any(ProcessExitedBeforeReadyError),
    message: expect.stringContaining("vite: not found"),
  });
  expect(await sandbox.getExposedPorts("localhost")).toEqual([]);
});
