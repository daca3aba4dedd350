import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  test: {
    reporters: ["default", "json"],
    outputFile: { json: here("../../target/test-report/vitest.json") },
    testTimeout: 30_000,
    hookTimeout: 60_000,
    projects: [
      // What needs no sandbox: parsers, ids, errors, and the transport over a real socket.
      { test: { name: "unit", include: ["test/{unit,transport}/**/*.test.ts"] } },
    ],
  },
});
