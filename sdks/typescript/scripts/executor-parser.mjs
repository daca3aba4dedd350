// Builds the parser that JavaScript and TypeScript executors load, for generate.mjs: crates/agent/src/code/executors.
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const EXECUTORS = "../../../crates/agent/src/code/executors/";
const SUCRASE = "../node_modules/sucrase/";
/** Parts of sucrase that do nothing for these executors: JSX, Flow, source maps, checks of its options. */
const UNUSED =
  /\/(?:JSX|Flow|JestHoist|ReactDisplayName|ReactHotLoader|NumericSeparator|OptionalCatchBinding|OptionalChainingNullish)Transformer\.js$|\/(?:computeSourceMap|Options-gen-types|formatTokens)\.js$|@jridgewell|ts-interface-checker|lines-and-columns/;

/** Where the built parser belongs, from this folder. */
export const PARSER = `${EXECUTORS}parser.js`;

/** The parser as the body of a function that returns it. */
export async function executorParser() {
  const here = (path) => fileURLToPath(new URL(path, import.meta.url));
  const licence = await readFile(here(`${SUCRASE}LICENSE`), "utf8");
  const { version } = JSON.parse(await readFile(here(`${SUCRASE}package.json`), "utf8"));
  const bundle = await rolldown({
    input: here(`${EXECUTORS}parser.mjs`),
    plugins: [{ name: "only-what-is-used", resolveId, load }],
    treeshake: { moduleSideEffects: false },
  });
  const { output } = await bundle.generate({ format: "iife", name: "parser", minify: true, exports: "named" });
  await bundle.close();
  const head = `/* Generated from parser.mjs by \`npm run generate\` in sdks/typescript, with sucrase ${version}:\n\n${licence.trim()}\n*/\n`;
  return `${head}${output[0].code.trim()}\nreturn parser;\n`;

  function resolveId(source, importer) {
    if (source === "sucrase") return here(`${SUCRASE}dist/esm/index.js`);
    const deep = /^sucrase\/(.*)$/.exec(source)?.[1];
    if (deep === "parser") return here(`${SUCRASE}dist/esm/parser/index.js`);
    if (deep === "parser/tokenizer") return here(`${SUCRASE}dist/esm/parser/tokenizer/index.js`);
    if (deep) return here(`${SUCRASE}dist/esm/${deep}.js`);
    const path = importer && source.startsWith(".") ? `${source.replace(/\.js$/, "")}.js` : source;
    return UNUSED.test(path) ? "\0unused" : null;
  }

  function load(id) {
    if (id !== "\0unused") return null;
    const names = ["startsWithLowerCase", "LinesAndColumns"].map((name) => `export const ${name} = undefined;`);
    const checkers = "export const createCheckers = () => ({ Options: { strictCheck() {} } });";
    return ["export default class {}", checkers, ...names].join("\n");
  }
}
