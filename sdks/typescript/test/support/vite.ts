import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const PACKAGE = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");

const FILES = {
  "package.json": JSON.stringify({ name: "app", private: true, type: "module", scripts: { dev: "vite" } }),
  "index.html": `<!doctype html><title>app</title><p id="text"></p><script type="module" src="/src/main.js"></script>`,
  "src/main.js": `import "./style.css";
import { text } from "./text.js";
const show = (text) => { document.querySelector("#text").textContent = text; };
show(text);
import.meta.hot.accept("./text.js", (changed) => show(changed.text));
`,
  "src/text.js": 'export const text = "before";\n',
  "src/style.css": "#text { color: rgb(1, 2, 3); }\n",
};

/** A project as `npm create vite` makes it, with its dependencies, in a folder of its own that is removed afterwards. */
export async function viteProject(): Promise<AsyncDisposable & { folder: string }> {
  const folder = await mkdtemp(join(tmpdir(), "sandcrab-vite-"));
  for (const [name, text] of Object.entries(FILES)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), text);
  }
  for (const path of await installed("vite")) await cp(join(PACKAGE, path), join(folder, path), { recursive: true });
  await mkdir(join(folder, "node_modules/.bin"));
  await symlink("../vite/bin/vite.js", join(folder, "node_modules/.bin/vite"));
  return { folder, [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) };
}

/** The folders of a package and of all that it needs; those that lie within another's are that one's. */
async function installed(name: string): Promise<string[]> {
  const found = new Set<string>();
  const find = async (name: string, user: string): Promise<void> => {
    const path = await resolve(name, user);
    // Optional, and not for this platform.
    if (path === undefined || found.has(path)) return;
    found.add(path);
    const { dependencies, optionalDependencies } = await manifest(path);
    for (const needed of Object.keys({ ...dependencies, ...optionalDependencies })) await find(needed, path);
  };
  await find(name, "");
  return [...found].filter((path) => path.lastIndexOf("node_modules/") === 0);
}

/** Where Node finds a package for the one in the folder `user`. */
async function resolve(name: string, user: string): Promise<string | undefined> {
  for (let at = join(PACKAGE, user); at.startsWith(PACKAGE); at = dirname(at)) {
    const path = relative(PACKAGE, join(at, "node_modules", name));
    if (await manifest(path).catch(() => undefined)) return path;
  }
  return undefined;
}

async function manifest(path: string) {
  return JSON.parse(await readFile(join(PACKAGE, path, "package.json"), "utf8"));
}
