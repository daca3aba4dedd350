import { readFile } from "node:fs/promises";
import type { ExposePortResult, Sandbox } from "sandcrab";

/** The text of `site.mjs`. */
export function siteText(): Promise<string> {
  return readFile(new URL("site.mjs", import.meta.url), "utf8");
}

/** Starts `site.mjs` in a sandbox. */
export async function startSite(sandbox: Sandbox, port: number): Promise<void> {
  await sandbox.writeFile("/srv/site.mjs", await siteText());
  const site = await sandbox.startProcess(`node /srv/site.mjs ${port}`);
  await site.waitForPort(port, { mode: "tcp", timeout: 20_000 });
}

/** Starts it and exposes it below a domain of one's own. */
export async function exposeSite(sandbox: Sandbox, port: number, hostname: string): Promise<ExposePortResult> {
  await startSite(sandbox, port);
  return sandbox.exposePort(port, { hostname });
}
