import { connect, getSandbox, type Sandbox } from "sandcrab";
import { afterEach, beforeEach, describe, expect, inject, test, vi } from "vitest";
import * as prepare from "../../../../examples/seed/prepare.js";

/** Runs an example from its beginning, as a program of its own would. */
async function run(example: string): Promise<Record<string, unknown>> {
  vi.resetModules();
  return import(new URL(`../../../../examples/seed/${example}`, import.meta.url).href);
}

/** The ids of all sandboxes of the server. */
async function sandboxIds(): Promise<string[]> {
  const headers = { authorization: `Bearer ${inject("key")}` };
  const answer = await fetch(`${inject("url")}/v1/sandboxes`, { headers });
  return ((await answer.json()) as { sandboxes: { id: string }[] }).sandboxes.map(({ id }) => id);
}

let seed: Sandbox;
let user: Sandbox;

beforeEach(async () => {
  vi.stubEnv("SANDCRAB_URL", inject("url"));
  vi.stubEnv("SANDCRAB_API_KEY", inject("key"));
  vi.stubEnv("OPENAI_API_KEY", "sk-of-the-test");
  seed = getSandbox(connect(), "seed");
  user = getSandbox(connect(), "user-123");
  await Promise.all([seed.destroy(), user.destroy()]);
});

afterEach(async () => {
  await Promise.all([seed.destroy(), user.destroy()]);
  vi.unstubAllEnvs();
});

describe.each(["js", "ts"])("seed examples in %s", (language) => {
  test(`S01 S08 S10 create-session.${language}: two environments build side by side`, async () => {
    await prepare.preparePackages(seed);
    await run(`create-session.${language}`);
    const config = async (name: string) =>
      JSON.parse((await seed.readFile(`/workspace/${name}/dist/config.json`)).content);
    expect(await config("prod")).toEqual({ NODE_ENV: "production", API_URL: "https://api.example.com" });
    expect(await config("test")).toEqual({ NODE_ENV: "test", API_URL: "http://localhost:3000" });
    const prod = await seed.getSession("prod");
    expect((await prod.exec("pwd; npm run build")).stdout).toMatch(
      /^\/workspace\/prod\n[\s\S]*built \/workspace\/prod for production$/,
    );
  });

  test(`S01 S10 get-session.${language}: the second request finds the session where the first left it`, async () => {
    await prepare.prepareRepository(seed);
    await run(`get-session-first-request.${language}`);
    const session = await seed.getSession("user-123");
    expect((await session.exec("pwd; ls node_modules")).stdout).toBe("/workspace/repo\ngreeting");
    await run(`get-session-second-request.${language}`);
    expect((await session.exec("pwd; cat dist/out.txt")).stdout).toBe(
      "/workspace/repo/repo\nhello from the dependency",
    );
  });

  test(`S01 get-session.${language}: the cwd is kept, so without a folder repo the second cd fails`, async () => {
    await prepare.prepareRepository(seed, { withFolder: false });
    await run(`get-session-first-request.${language}`);
    await run(`get-session-second-request.${language}`);
    const session = await seed.getSession("user-123");
    const again = await session.exec("cd repo && npm run build");
    expect(again).toMatchObject({ exitCode: 1, success: false });
    expect(again.stderr).toContain("repo");
    expect((await session.exec("pwd")).stdout).toBe("/workspace/repo");
  });

  test(`S11 set-env-vars.${language}: commands see the variables`, async () => {
    await prepare.prepareScript(user);
    await run(`set-env-vars.${language}`);
    expect(JSON.parse((await user.readFile("/tmp/script-saw.json")).content)).toEqual({
      API_KEY: "sk-of-the-test",
      DATABASE_URL: "postgres://localhost/app",
      NODE_ENV: "production",
    });
  });

  test(`L06 F01 destroy.${language}: code runs in a sandbox that is gone afterwards`, async () => {
    const { executeCode } = (await run(`destroy.${language}`)) as { executeCode: (code: string) => Promise<string> };
    const code = 'import os\nprint("ünï", 6 * 7)\nprint(os.getcwd())\n';
    const before = await sandboxIds();
    expect(await executeCode(code)).toBe("ünï 42\n/workspace");
    expect(await executeCode("import sys; sys.exit('no')")).toBe("");
    expect((await sandboxIds()).filter((id) => id.startsWith("temp-"))).toEqual(
      before.filter((id) => id.startsWith("temp-")),
    );
  });
});
