import { defineConfig } from "tsdown";

export default defineConfig({
  entry: ["src/index.ts"],
  format: ["esm", "cjs"],
  // "neutral": nothing of Node's may slip in, the same files run in browsers and Workers.
  platform: "neutral",
  target: "es2022",
  dts: true,
  sourcemap: true,
  outExtensions: ({ format }) => (format === "cjs" ? { js: ".cjs", dts: ".d.cts" } : { js: ".js", dts: ".d.ts" }),
});
