// Writes src/generated/ from the repository's openapi.json. With --check: fails if a committed file differs.
import { readFile, writeFile, mkdir } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";
import { errorClasses } from "./errors.mjs";

const check = process.argv.includes("--check");
const here = (path) => new URL(path, import.meta.url);
const source = here("../../../openapi.json");
const document = JSON.parse(await readFile(source, "utf8"));

const head = "// Generated from openapi.json by `npm run generate`. Do not edit.\n";
const files = {
  "../src/generated/api.ts": head + astToString(await openapiTS(document, { alphabetize: true })),
  "../src/generated/errors.ts": head + errorClasses(document.components.schemas.ErrorCode.enum),
};

await mkdir(here("../src/generated/"), { recursive: true });
const stale = [];
for (const [name, text] of Object.entries(files)) {
  const committed = await readFile(here(name), "utf8").catch(() => "");
  if (committed === text) continue;
  if (check) stale.push(name.replace("../", ""));
  else await writeFile(here(name), text);
}
if (stale.length > 0) {
  console.error(`out of date with openapi.json: ${stale.join(", ")}; run \`npm run generate\``);
  process.exit(1);
}
