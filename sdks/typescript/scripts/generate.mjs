// Writes src/generated/ from the repository's openapi.json, and the parser of code executors. With --check: fails if a committed file differs.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";
import { errorClasses } from "./errors.mjs";
import { executorParser, PARSER } from "./executor-parser.mjs";

const check = process.argv.includes("--check");
const here = (path) => new URL(path, import.meta.url);
const source = here("../../../openapi.json");
const document = JSON.parse(await readFile(source, "utf8"));

// Only what crosses the wire is of use here: the paths are called by hand-written classes.
const schemas = { ...document, paths: {}, components: { schemas: withoutNulls(document.components.schemas) } };
const head = "// Generated from openapi.json by `npm run generate`. Do not edit.\n";
const files = {
  "../src/generated/api.ts": head + astToString(await openapiTS(schemas, { alphabetize: true })),
  "../src/generated/errors.ts": head + errorClasses(document.components.schemas.ErrorCode.enum),
  [PARSER]: await executorParser(),
};

await mkdir(here("../src/generated/"), { recursive: true });
const stale = [];
for (const [name, text] of Object.entries(files)) {
  const committed = await readFile(here(name), "utf8").catch(() => "");
  if (committed === text) continue;
  if (check) stale.push(name.replace(/^(?:\.\.\/)+/, ""));
  else await writeFile(here(name), text);
}
if (stale.length > 0) {
  console.error(`out of date: ${stale.join(", ")}; run \`npm run generate\``);
  process.exit(1);
}

/**
 * A property that may be missing may also be null by the document, as the server reads both alike. Neither the server
 * nor this package ever writes that null.
 */
function withoutNulls(node) {
  if (Array.isArray(node)) return node.map(withoutNulls);
  if (typeof node !== "object" || node === null) return node;
  const copy = Object.fromEntries(Object.entries(node).map(([name, value]) => [name, withoutNulls(value)]));
  for (const [name, property] of Object.entries(copy.properties ?? {})) {
    if (!copy.required?.includes(name)) copy.properties[name] = withoutNull(property);
  }
  return copy;
}

function withoutNull(property) {
  if (Array.isArray(property.type)) return { ...property, type: property.type.filter((type) => type !== "null") };
  const others = property.oneOf?.filter(({ type }) => type !== "null");
  if (others?.length !== 1) return property;
  const { oneOf: _, ...rest } = property;
  return { ...rest, ...others[0] };
}
