import type { TestProject } from "vitest/node";
import { servePage } from "./page.js";
import { startServer } from "./server.js";

declare module "vitest" {
  export interface ProvidedContext {
    url: string;
    key: string;
    /** Where the built package is served to browsers; the server lets this origin call it. */
    origin: string;
  }
}

/** One real server for all tests that need one: a new one, or that of `SANDCRAB_URL` and `SANDCRAB_API_KEY`. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const { SANDCRAB_URL: url, SANDCRAB_API_KEY: key = "" } = process.env;
  const page = await servePage();
  const server = url ? { url, key, stop: async () => {} } : await startServer(page.origin);
  project.provide("url", server.url);
  project.provide("key", server.key);
  project.provide("origin", page.origin);
  return async () => {
    await page.stop();
    await server.stop();
  };
}
