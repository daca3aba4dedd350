import { fileURLToPath } from "node:url";
import ts from "typescript";

const here = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const OURS = here("src/index.ts");
const THEIRS = here("node_modules/@cloudflare/sandbox/dist/index.d.ts");

/** As a program that uses the original would be compiled, strictly. */
const OPTIONS: ts.CompilerOptions = {
  strict: true,
  skipLibCheck: true,
  noEmit: true,
  target: ts.ScriptTarget.ESNext,
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  types: [],
  lib: ["lib.es2023.d.ts", "lib.dom.d.ts", "lib.dom.asynciterable.d.ts"],
};

/** What a module exports, by name. */
export interface Names {
  /** Every name that it exports. */
  exports: string[];
  /** Those that are there at run time. */
  values: string[];
  /** The public members of an exported class or interface. */
  membersOf(name: string): string[];
}

/** What the original and this package export. */
export function names(): { theirs: Names; ours: Names } {
  const program = ts.createProgram([THEIRS, OURS], OPTIONS);
  const checker = program.getTypeChecker();
  const of = (file: string): Names => {
    const source = program.getSourceFile(file);
    const module = source && checker.getSymbolAtLocation(source);
    if (!module) throw new Error(`${file} is no module: npm ci installs what this test needs`);
    const direct = checker.getExportsOfModule(module).map((symbol) => ({
      name: symbol.name,
      symbol: symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol,
      // `export type { A }` of a class gives no value.
      isType: symbol.declarations?.every(ts.isTypeOnlyExportDeclaration) ?? false,
    }));
    const isValue = ({ symbol, isType }: (typeof direct)[number]) => !isType && symbol.flags & ts.SymbolFlags.Value;
    return {
      exports: direct.map(({ name }) => name),
      values: direct.filter(isValue).map(({ name }) => name),
      membersOf(name) {
        const found = direct.find((one) => one.name === name);
        if (!found) throw new Error(`${file} does not export ${name}`);
        return checker
          .getDeclaredTypeOfSymbol(found.symbol)
          .getProperties()
          .filter(isPublic)
          .map((one) => one.name);
      },
    };
  };
  return { theirs: of(THEIRS), ours: of(OURS) };
}

function isPublic(symbol: ts.Symbol): boolean {
  const hidden = ts.ModifierFlags.Private | ts.ModifierFlags.Protected;
  const declared = symbol.declarations?.[0];
  return !symbol.name.startsWith("__#") && !(declared && ts.getCombinedModifierFlags(declared) & hidden);
}

/** What does not fit, by the name of its assertion: each is a line of TypeScript about the types `Theirs` and `Ours`. */
export function misfits(assertions: Record<string, string>): Record<string, string> {
  const file = here("test/support/generated-assertions.ts");
  const lines = Object.values(assertions);
  const head = `import type * as Theirs from ${JSON.stringify(THEIRS.replace(/\.d\.ts$/, ".js"))};\nimport type * as Ours from ${JSON.stringify(OURS)};\n`;
  const text = head.replace(OURS, OURS.replace(/\.ts$/, ".js")) + lines.join("\n");
  const host = ts.createCompilerHost(OPTIONS);
  const { getSourceFile, fileExists, readFile } = host;
  host.fileExists = (name) => name === file || fileExists.call(host, name);
  host.readFile = (name) => (name === file ? text : readFile.call(host, name));
  host.getSourceFile = (name, ...rest) =>
    name === file ? ts.createSourceFile(name, text, OPTIONS.target ?? 99) : getSourceFile.call(host, name, ...rest);
  const program = ts.createProgram([file], OPTIONS, host);
  const source = program.getSourceFile(file);
  const found: Record<string, string> = {};
  for (const { messageText, start = 0 } of program.getSemanticDiagnostics(source)) {
    const at = (source?.getLineAndCharacterOfPosition(start).line ?? 0) - 2;
    const message = ts.flattenDiagnosticMessageText(messageText, "\n");
    if (at < 0) throw new Error(message);
    found[Object.keys(assertions)[at] ?? ""] = message;
  }
  return found;
}
