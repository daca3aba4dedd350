import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  test: {
    reporters: ["default", "json"],
    outputFile: { json: here("../../target/test-report/vitest.json") },
    // A server and its sandboxes share the machine with the tests.
    maxWorkers: 2,
    projects: [
      {
        // What needs no sandbox: parsers, ids, errors, and the transport over a real socket.
        test: { name: "unit", include: ["test/{unit,transport}/**/*.test.ts"], testTimeout: 40_000 },
      },
      {
        // The built package, as its users get it, against a real server.
        resolve: {
          alias: {
            "sandcrab/node": here("dist/node.js"),
            "sandcrab/openai": here("dist/openai.js"),
            sandcrab: here("dist/index.js"),
          },
        },
        test: {
          name: "server",
          include: ["test/{conformance,runtimes,examples}/**/*.test.ts"],
          globalSetup: ["test/support/global.ts"],
          testTimeout: 60_000,
          hookTimeout: 90_000,
          // What is waited for comes by itself; on a busy machine later.
          expect: { poll: { timeout: 30_000, interval: 20 } },
        },
      },
    ],
  },
});
