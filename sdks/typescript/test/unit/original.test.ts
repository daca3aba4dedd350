import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { ERROR_CLASSES } from "../../src/generated/errors.js";
import * as sandcrab from "../../src/index.js";
import { misfits, names } from "../support/original.js";

const { theirs, ours } = names();

/** Every row of the page's tables, by the heading above: what it names, and how it stands here. */
const page = new Map<string, Map<string, string>>();
let heading = "";
for (const line of readFileSync(new URL("../../../../docs/FROM_CLOUDFLARE.md", import.meta.url), "utf8").split("\n")) {
  if (line.startsWith("## ")) heading = line.slice(3);
  const [, cell = "", status = ""] = line.split(" | ").length > 2 ? line.split(/^\| | \| /) : [];
  const rows = page.get(heading) ?? new Map<string, string>();
  for (const [, name = ""] of cell.matchAll(/`([A-Za-z0-9]+)`/g)) rows.set(name, status);
  page.set(heading, rows);
}

/** The names under a heading that stand in one of these ways. */
function standing(under: string, ...ways: string[]): string[] {
  return [...(page.get(under) ?? [])].filter(([, way]) => ways.includes(way)).map(([name]) => name);
}

const WAYS = ["same", "differs", "not yet", "no"];
const SANDBOX = "Methods and fields of a sandbox";
const MEMBERS: [under: string, theirs: string, ours: string][] = [
  [SANDBOX, "Sandbox", "Sandbox"],
  ["Methods of a session", "ExecutionSession", "ExecutionSession"],
  ["Methods and fields of a process", "Process", "Process"],
];

describe("every public name of the original", () => {
  test("is on the page, once, and nothing else is", () => {
    const named = (under: string) => [...(page.get(under)?.keys() ?? [])].sort();
    expect(named("Exports")).toEqual([...theirs.exports].sort());
    for (const [under, name] of MEMBERS) expect(named(under), under).toEqual(theirs.membersOf(name).sort());
    for (const rows of page.values()) for (const [name, way] of rows) expect(WAYS, `${name}: ${way}`).toContain(way);
  });

  test("is exported here, so that no import of it stops a bundler", () => {
    expect(theirs.exports.filter((name) => !ours.exports.includes(name))).toEqual([]);
    expect(theirs.values.filter((name) => !(name in sandcrab))).toEqual([]);
  });

  test("sub-paths too", () => {
    const read = (path: string) => JSON.parse(readFileSync(new URL(`../../${path}`, import.meta.url), "utf8"));
    const paths = ({ exports }: { exports: object }) => Object.keys(exports).map((path) => path.slice(2));
    const original = paths(read("node_modules/@cloudflare/sandbox/package.json")).filter((path) => path !== "");
    expect([...(page.get("Sub-paths")?.keys() ?? [])].sort()).toEqual(original.sort());
    const own = paths(read("package.json"));
    expect(standing("Sub-paths", "same", "differs").filter((path) => !own.includes(path))).toEqual([]);
  });

  test.each(MEMBERS)("%s: the page says what is there and what is not", (under, _, name) => {
    const members = ours.membersOf(name);
    expect(standing(under, "same", "differs").filter((one) => !members.includes(one))).toEqual([]);
    expect(standing(under, "not yet", "no").filter((one) => members.includes(one))).toEqual([]);
  });

  test("that has nothing to stand for here says so when it is used", async () => {
    const told = expect.objectContaining({ code: "NOT_SUPPORTED", httpStatus: 501, suggestion: expect.any(String) });
    for (const name of standing("Exports", "no").filter((one) => one.endsWith("Client") && one in sandcrab)) {
      // biome-ignore lint/performance/noDynamicNamespaceImportAccess: the names come from the page.
      const Client = sandcrab[name as keyof typeof sandcrab] as new () => unknown;
      expect(() => new Client(), name).toThrow(told);
    }
    const request = new Request("http://a/");
    await expect(new sandcrab.ContainerProxy().fetch(request)).rejects.toThrow(told);
    const stub = { fetch: async () => new Response() };
    await expect(sandcrab.proxyTerminal(stub, "s", request)).rejects.toThrow(told);
  });
});

/** What callers give: whatever the original takes must be taken here. */
const GIVEN = /(?:Options|Callbacks)$/;
/** What callers get: whatever the original promises must be there. */
const GOT = /(?:Result|Event|Context|Metadata|Chunk|Status)$/;

test("signatures: what the page calls the same takes and gives what the original does", () => {
  const assertions: Record<string, string> = {};
  const add = (name: string, wanted: string, given: string) => {
    const line = Object.keys(assertions).length;
    assertions[name] = `export const a${line}: ${wanted} = null! as ${given};`;
  };
  for (const [under, original, own] of MEMBERS)
    for (const member of standing(under, "same"))
      add(`${under}: ${member}`, `Theirs.${original}["${member}"]`, `Ours.${own}["${member}"]`);
  for (const name of standing("Exports", "same")) {
    if (theirs.values.includes(name)) {
      // A class is taken and thrown; only functions are called.
      if (/^[a-z]/.test(name)) add(name, `typeof Theirs.${name}`, `typeof Ours.${name}`);
    } else if (GIVEN.test(name)) add(name, `Ours.${name}`, `Theirs.${name}`);
    else if (GOT.test(name)) add(name, `Theirs.${name}`, `Ours.${name}`);
  }
  expect(Object.keys(assertions).length).toBeGreaterThan(100);
  expect(misfits(assertions)).toEqual({});
  // What is looked for is found.
  expect(misfits({ wrong: "export const a: Theirs.ExecResult = null! as Ours.FileMetadata;" })).toHaveProperty("wrong");
});

test("options: each that the original has is one here", () => {
  const groups = theirs.exports.filter(
    (name) => name.endsWith("Options") && standing("Exports", "same").includes(name),
  );
  for (const name of groups) {
    const known = [...ours.membersOf(name), "sessionId"];
    expect(
      theirs.membersOf(name).filter((option) => !known.includes(option)),
      name,
    ).toEqual([]);
  }
  expect(groups).toContain("SandboxOptions");
});

test("error.name is one of the original's where the code is one of the original's", () => {
  const dist = new URL("../../node_modules/@cloudflare/sandbox/dist/", import.meta.url);
  const read = (pattern: RegExp, file: RegExp) => {
    const found = new Set<string>();
    for (const name of readdirSync(dist).filter((one) => file.test(one)))
      for (const [, word = ""] of readFileSync(new URL(name, dist), "utf8").matchAll(pattern)) found.add(word);
    return found;
  };
  const codes = read(/^\t([A-Z_]+): "\1"/gm, /^errors-.*\.js$/);
  const known = read(/this\.name = "([A-Za-z0-9]+)"/g, /^sandbox-.*\.js$/);
  expect([codes.size > 50, known.size > 30]).toEqual([true, true]);
  const facts = { message: "", context: {}, httpStatus: 500, timestamp: "" };
  for (const [code, ErrorClass] of Object.entries(ERROR_CLASSES))
    if (codes.has(code)) expect([...known], code).toContain(new ErrorClass({ ...facts, code }).name);
});
