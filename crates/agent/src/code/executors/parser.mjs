// What V8's consoles do not take as it is: TypeScript, `import` statements, names declared twice in one text. Built into
// parser.js by `npm run generate` in sdks/typescript, with the parser and the type stripper of sucrase.
import { transform } from "sucrase";
import { parse } from "sucrase/parser";
import { ContextualKeyword } from "sucrase/parser/tokenizer/keywords";
import { IdentifierRole } from "sucrase/parser/tokenizer";
import { TokenType as tt } from "sucrase/parser/tokenizer/types";

/**
 * TypeScript without its types, line for line. Enums and parameter properties become code; what would have to become more is
 * refused by its name.
 */
export function stripTypes(code) {
  refuseUnknown(code);
  const options = { transforms: ["typescript"], disableESTransforms: true, keepUnusedImports: true };
  return transform(code, { ...options, preserveDynamicImport: true }).code;
}

/** A file of TypeScript as an ES module, or as one that `require` loads. What it imports only as types is not imported. */
export function fileOf(code, isModule) {
  refuseUnknown(code);
  const transforms = isModule ? ["typescript"] : ["typescript", "imports"];
  return transform(code, { transforms, disableESTransforms: true, preserveDynamicImport: true }).code;
}

/** Whether a file's text is of an ES module. */
export function isModule(code) {
  const { tokens } = parse(code, false, true, false);
  return tokens.some(({ type }, at) => {
    const next = tokens[at + 1]?.type;
    if (next === tt.eq || tokens[at - 1]?.type === tt.dot) return false;
    // `import x = require("y")` is of a module that `require` loads.
    return type === tt._export || (type === tt._import && next !== tt.parenL && tokens[at + 2]?.type !== tt.eq);
  });
}

const VALUES = new Set([tt._const, tt._let, tt._var, tt._function, tt._class, tt._enum]);

/** The type stripper drops namespaces with all that is in them, and knows no decorators. */
function refuseUnknown(code) {
  const { tokens } = parse(code, false, true, false);
  const refuse = (token, what) => {
    const error = new SyntaxError(what);
    error.loc = { line: lines(code, token.start) + 1 };
    throw error;
  };
  for (let at = 0; at < tokens.length; at++) {
    const token = tokens[at];
    if (token.type === tt.at) refuse(token, "decorators are not supported here; call the function that decorates");
    const isNamespace = token.contextualKeyword === ContextualKeyword._namespace || token.contextualKeyword === ContextualKeyword._module;
    if (!isNamespace || !token.isType || tokens[at + 1].type !== tt.name || tokens[at - 1]?.type === tt._declare) continue;
    if (tokens[at - 1]?.contextualKeyword === ContextualKeyword._declare) continue;
    let end = at + 1;
    for (let depth = 0; end < tokens.length; end++) {
      if (tokens[end].type === tt.braceL) depth++;
      else if (tokens[end].type === tt.braceR && --depth === 0) break;
      else if (VALUES.has(tokens[end].type)) {
        refuse(token, "namespaces with values are not supported here; use an object or a module");
      }
    }
    at = end;
  }
}

/** Exports as a script can have them: what is declared is declared, and what comes from elsewhere is loaded. */
export function rewriteExports(code) {
  const { tokens } = parse(code, false, false, false);
  const text = (token) => code.slice(token.start, token.end);
  let out = "";
  let done = 0;
  const replace = (from, to, by) => {
    out += code.slice(done, from) + by + "\n".repeat(lines(code.slice(from, to), to - from) - lines(by, by.length));
    done = to;
  };
  for (let at = 0; at < tokens.length; at++) {
    const { type, start, end } = tokens[at];
    if (type !== tt._export || tokens[at - 1]?.type === tt.dot) continue;
    const next = tokens[at + 1];
    if (next.type === tt._default) {
      const value = tokens[at + 2];
      // What has a name is declared; the rest are values.
      replace(start, next.end, declaresName(text, tokens, at + 2) ? "" : "void 0,");
    } else if (next.type === tt.star || next.type === tt.braceL) {
      let last = at + 1;
      const names = [];
      if (next.type === tt.braceL) {
        for (last++; tokens[last].type !== tt.braceR; last++) {
          if (tokens[last].type === tt.comma) continue;
          const exported = text(tokens[last]);
          names.push(/^["']/.test(exported) ? exported : JSON.stringify(exported));
          if (tokens[last + 1].type !== tt.comma && tokens[last + 1].type !== tt.braceR) last += 2;
        }
      } else if (text(tokens[last + 1]) === "as") last += 2;
      let by = ";";
      if (tokens[last + 1].type === tt.name && text(tokens[last + 1]) === "from") {
        last += 2;
        by = `void (await __sandcrab.importNames(${text(tokens[last])}, [${names.join(", ")}]));`;
      }
      if (tokens[last + 1].type === tt.semi) last++;
      replace(start, tokens[last].end, by);
      at = last;
    } else replace(start, next.start > end ? end : next.start, "");
  }
  return out + code.slice(done);
}

/** Whether a class or function with a name begins at token `at`. */
function declaresName(text, tokens, at) {
  let name = at + 1;
  if (text(tokens[at]) === "async" && tokens[at + 1].type === tt._function) name++;
  else if (tokens[at].type !== tt._function && tokens[at].type !== tt._class) return false;
  if (tokens[name].type === tt.star) name++;
  return tokens[name].type === tt.name;
}

/** Imports as a script can do them: by calls of `__sandcrab`, which resolve from the working directory. */
export function rewriteImports(code) {
  const { tokens } = parse(code, false, false, false);
  let out = "";
  let done = 0;
  const replace = (from, to, text) => {
    // Lines stay where they are.
    const lines = code.slice(from, to).split("\n").length - text.split("\n").length;
    out += code.slice(done, from) + text + "\n".repeat(lines);
    done = to;
  };
  for (let at = 0; at < tokens.length; at++) {
    const { type, start, end } = tokens[at];
    const next = tokens[at + 1];
    // In `import.meta` the first word is a name like any other.
    const isMeta = type === tt.name && end - start === 6 && next.type === tt.dot && code.slice(start, end) === "import";
    if ((type !== tt._import && !isMeta) || tokens[at - 1]?.type === tt.dot) continue;
    if (isMeta || next.type === tt.dot) replace(start, tokens[at + 2].end, "__sandcrab.meta");
    else if (next.type === tt.parenL) replace(start, end, "__sandcrab.import");
    else {
      const statement = readImport(code, tokens, at + 1);
      replace(start, statement.end, statement.text);
      at = statement.last;
    }
  }
  return out + code.slice(done);
}

/** The statement whose `import` stands before token `at`. */
function readImport(code, tokens, at) {
  const text = (token) => code.slice(token.start, token.end);
  const names = [];
  const pattern = [];
  let namespace;
  for (; tokens[at].type !== tt.string; at++) {
    const token = tokens[at];
    if (token.type === tt.star) {
      at += 2;
      namespace = text(tokens[at]);
    } else if (token.type === tt.braceL) {
      for (at++; tokens[at].type !== tt.braceR; at++) {
        if (tokens[at].type === tt.comma) continue;
        const imported = text(tokens[at]);
        const renamed = tokens[at + 1].type !== tt.comma && tokens[at + 1].type !== tt.braceR;
        if (renamed) at += 2;
        names.push(/^["']/.test(imported) ? imported : JSON.stringify(imported));
        pattern.push(`${imported}: ${text(tokens[at])}`);
      }
    } else if (token.type === tt.name && text(token) !== "from") {
      names.push('"default"');
      pattern.push(`default: ${text(token)}`);
    } else if (token.type === tt.name && tokens[at + 1].type !== tt.string) {
      // `import from from "…"`: a default import of that name.
      names.push('"default"');
      pattern.push("default: from");
    }
  }
  let last = at;
  let options = "";
  const follows = tokens[at + 1];
  if (follows.type === tt._with || (follows.type === tt.name && text(follows) === "assert")) {
    for (last = at + 2; tokens[last].type !== tt.braceR; last++);
    options = `, { with: ${code.slice(tokens[at + 2].start, tokens[last].end).replace(/\s+/g, " ")} }`;
  }
  const semicolon = tokens[last + 1].type === tt.semi;
  if (semicolon) last++;
  const call = `await __sandcrab.importNames(${text(tokens[at])}, [${names.join(", ")}]${options})`;
  const declared = [];
  if (namespace !== undefined) declared.push(`${namespace} = ${call}`);
  if (pattern.length > 0) declared.push(`{ ${pattern.join(", ")} } = ${namespace ?? call}`);
  const statement = declared.length > 0 ? `const ${declared.join(", ")};` : `void (${call});`;
  return { text: statement, end: tokens[last].end, last };
}

/**
 * Constants of the top level as variables, but those that the text assigns to, which shall fail as they do everywhere: a
 * later cell may declare the name again, in any way.
 */
export function relaxConstants(code) {
  const { tokens } = parse(code, false, false, false);
  const assigned = new Set();
  tokens.forEach((token, at) => {
    const next = tokens[at + 1]?.type;
    const changes = ASSIGNS.has(next) || tokens[at - 1]?.type === tt.preIncDec;
    if (changes && token.identifierRole === IdentifierRole.Access) assigned.add(code.slice(token.start, token.end));
  });
  let out = "";
  let done = 0;
  for (const { keyword, names } of declarations(code, tokens)) {
    if (keyword.type !== tt._const || [...names].some((name) => assigned.has(name))) continue;
    out += `${code.slice(done, keyword.start)}let  `;
    done = keyword.end;
  }
  return out + code.slice(done);
}

const ASSIGNS = new Set([tt.eq, tt.assign, tt.preIncDec, tt.postIncDec]);
const DECLARES = new Set([
  IdentifierRole.TopLevelDeclaration,
  IdentifierRole.ObjectShorthandTopLevelDeclaration,
]);
const STARTS = new Set([tt._const, tt._let, tt._class, tt._function, tt._var]);
const OPENS = new Set([tt.braceL, tt.parenL, tt.bracketL, tt.dollarBraceL, tt.braceBarL]);
const CLOSES = new Set([tt.braceR, tt.parenR, tt.bracketR, tt.braceBarR]);

/**
 * The text with `name` declared in another way: of the two kinds of global names that V8 has, one cannot take the place of
 * the other. Undefined if the text does not declare it.
 */
export function redeclare(code, name) {
  const { tokens } = parse(code, false, false, false);
  const found = declarations(code, tokens).find(({ names }) => names.has(name));
  if (!found) return undefined;
  const { start, keyword } = found;
  const kinds = { [tt._const]: "var  ", [tt._let]: "var", [tt._var]: "let", [tt._class]: `var ${name} = class` };
  const kind = kinds[keyword.type];
  if (kind) return code.slice(0, keyword.start) + kind + code.slice(keyword.end);
  return `${code.slice(0, start)}let ${name} = ${code.slice(start)}`;
}

/** The declarations of the top level: where each begins, its keyword, the names. */
function declarations(code, tokens) {
  const found = [];
  let depth = 0;
  for (let at = 0; at < tokens.length; at++) {
    const token = tokens[at];
    if (depth === 0 && STARTS.has(token.type)) {
      const before = tokens[at - 1];
      const isAsync = token.type === tt._function && before && code.slice(before.start, before.end) === "async";
      found.push({ start: isAsync ? before.start : token.start, keyword: token, names: new Set() });
    }
    if (DECLARES.has(token.identifierRole)) found.at(-1)?.names.add(code.slice(token.start, token.end));
    if (OPENS.has(token.type)) depth++;
    else if (CLOSES.has(token.type)) depth--;
  }
  return found;
}

/** The text cut where a declaration repeats a name: each part declares a name once. Each keeps its line numbers. */
export function splitAtRedeclarations(code) {
  const cuts = [];
  let declared = new Set();
  for (const { start, names } of declarations(code, parse(code, false, false, false).tokens)) {
    if ([...names].some((name) => declared.has(name))) {
      cuts.push(start);
      declared = new Set();
    }
    for (const name of names) declared.add(name);
  }
  return [0, ...cuts].map((start, index) => "\n".repeat(lines(code, start)) + code.slice(start, cuts[index]));
}

function lines(code, end) {
  return code.slice(0, end).split("\n").length - 1;
}
