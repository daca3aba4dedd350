import { readFile } from "node:fs/promises";

/** What the seed's examples did, as seen from outside. */
export interface SeedFindings {
  built: { NODE_ENV: string; API_URL: string }[];
  resumed: string;
  variables: Record<string, string>;
  printed: string;
  /** Whether the sandbox of the code that ran is gone. */
  gone: boolean;
}

const EXAMPLES = {
  createSession: "create-session.js",
  firstRequest: "get-session-first-request.js",
  secondRequest: "get-session-second-request.js",
  setEnvVars: "set-env-vars.js",
};

/** An example's own lines: what it imports is there already, and it exports by returning. */
async function linesOf(name: string): Promise<string> {
  const text = await readFile(new URL(`../../../../examples/seed/${name}`, import.meta.url), "utf8");
  return text
    .replaceAll(/^import .*$/gm, "")
    .replaceAll(/^export (?:\{ (\w+) \};|(?=async|const))/gm, (_, name) => (name ? `return ${name};` : ""));
}

/**
 * The seed's examples as one function that takes the package and where its server is. It is sent to the runtime as text, as
 * `script` is, because not every runtime loads modules by path. Sandboxes get ids of their own.
 */
export async function seedScript(): Promise<string> {
  const functions = Object.entries(EXAMPLES).map(
    async ([name, file]) => `const ${name} = async () => {${await linesOf(file)}};`,
  );
  return `async (api, url, apiKey, prefix) => {
  const getSandbox = (connection, id) => api.getSandbox(connection, prefix + id.replace("temp-", "t"));
  const env = {
    Sandbox: api.connect({ url, apiKey }),
    OPENAI_API_KEY: "sk-of-the-test",
    DATABASE_URL: "postgres://localhost/app",
  };
  const sandbox = getSandbox(env.Sandbox, "-s");
  ${await linesOf("prepare.js")}
  ${(await Promise.all(functions)).join("\n  ")}
  const { executeCode } = await (async () => { ${(await linesOf("destroy.js")).replace("return executeCode;", "return { executeCode };")} })();

  await preparePackages(sandbox);
  await createSession();
  const built = await Promise.all(["prod", "test"].map(async (name) =>
    JSON.parse((await sandbox.readFile("/workspace/" + name + "/dist/config.json")).content)));
  await prepareRepository(sandbox);
  await firstRequest();
  await secondRequest();
  const session = await sandbox.getSession("user-123");
  const resumed = (await session.exec("pwd; cat dist/out.txt")).stdout;
  const user = getSandbox(env.Sandbox, "user-123");
  await prepareScript(user);
  await setEnvVars();
  const variables = JSON.parse((await user.readFile("/tmp/script-saw.json")).content);
  const printed = await executeCode("print('ünï', 6 * 7)");
  const headers = { authorization: "Bearer " + apiKey };
  const { sandboxes } = await (await fetch(url + "/v1/sandboxes", { headers })).json();
  const gone = !sandboxes.some(({ id }) => id.startsWith(prefix + "t"));
  await Promise.all([sandbox.destroy(), user.destroy()]);
  return { built, resumed, variables, printed, gone };
}`;
}

export const EXPECTED_SEED: SeedFindings = {
  built: [
    { NODE_ENV: "production", API_URL: "https://api.example.com" },
    { NODE_ENV: "test", API_URL: "http://localhost:3000" },
  ],
  resumed: "/workspace/repo/repo\nhello from the dependency",
  variables: {
    API_KEY: "sk-of-the-test",
    DATABASE_URL: "postgres://localhost/app",
    NODE_ENV: "production",
  },
  printed: "ünï 42",
  gone: true,
};
