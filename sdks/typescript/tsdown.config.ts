import { defineConfig, type UserConfig } from "tsdown";

const common: UserConfig = {
  format: ["esm", "cjs"],
  target: "es2022",
  dts: true,
  sourcemap: true,
  outExtensions: ({ format }) => (format === "cjs" ? { js: ".cjs", dts: ".d.cts" } : { js: ".js", dts: ".d.ts" }),
};

export default defineConfig([
  // "neutral": nothing of Node's may slip in, the same files run in browsers and Workers.
  { ...common, entry: ["src/index.ts"], platform: "neutral" },
  { ...common, entry: ["src/node.ts"], platform: "node", clean: false },
  { ...common, entry: ["src/openai.ts"], platform: "neutral", clean: false },
]);
