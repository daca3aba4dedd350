import { type ExecutionSession, getSandbox, type Sandbox, ValidationFailedError } from "sandcrab";
import { describe, expect } from "vitest";
import { connection, freshId, rejection, test } from "../support/sandbox.js";

/** What a caller of JavaScript may hand over in the place of anything. */
const VALUES: unknown[] = [null, 5, Number.NaN, {}, [], true, "", () => {}, Symbol("x"), 10n, "\ud800"];
const OPTIONS = ["timeout", "cwd", "env", "signal", "onOutput", "stdin", "language", "hostname", "mode", "encoding"];

type Method = (...args: unknown[]) => unknown;

/** The calls that fail with anything but an error of this package, each once. */
async function raw(target: Sandbox | ExecutionSession): Promise<string[]> {
  const found = new Set<string>();
  const ask = async (name: string, ...args: unknown[]): Promise<void> => {
    try {
      const answer = await (target as unknown as Record<string, Method>)[name]?.(...args);
      if (answer instanceof ReadableStream) await answer.cancel();
    } catch (error) {
      if (typeof (error as { code?: unknown }).code === "string") return;
      found.add(`${name}(${args.map(String).join(", ")}): ${(error as Error).message}`);
    }
  };
  for (let type: object = target; type !== Object.prototype; type = Object.getPrototypeOf(type)) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(type))) {
      if (typeof value !== "function" || ["constructor", "destroy", "stop", "wsConnect", "fetch"].includes(name))
        continue;
      await ask(name);
      for (const bad of VALUES) {
        for (const args of [[bad], ["x", bad], ["x", "y", bad], [5000, bad]]) await ask(name, ...args);
      }
      for (const option of OPTIONS) for (const bad of VALUES) await ask(name, "true", { [option]: bad });
    }
  }
  return [...found];
}

describe("X01 bad input", () => {
  test("X01 no method fails with an error of JavaScript's own, whatever it is given", async ({ sandbox }) => {
    expect(await raw(sandbox)).toEqual([]);
    expect(await raw(await sandbox.createSession({ id: "input" }))).toEqual([]);
  }, 120_000);

  test("X02 the field is named, also where JSON would lose the value", async ({ sandbox }) => {
    const process = await sandbox.startProcess("sleep 100");
    const untyped = (value: unknown) => value as never;
    const calls: [string, () => Promise<unknown>][] = [
      ["timeout", () => sandbox.exec("true", { timeout: Number.NaN })],
      ["timeout", () => sandbox.exec("true", { timeout: Number.POSITIVE_INFINITY })],
      ["onOutput", () => sandbox.exec("true", { onOutput: untyped(5) })],
      ["signal", () => sandbox.exec("true", { signal: untyped({}) })],
      ["options", () => sandbox.exec("true", untyped(5))],
      ["timeout", () => process.waitForLog(/x/, Number.POSITIVE_INFINITY)],
      ["timeout", () => process.waitForExit(Number.NaN)],
      ["pattern", () => process.waitForLog(untyped(5))],
      ["port", () => process.waitForPort(70_000)],
      ["sleepAfter", () => sandbox.setSleepAfter(Number.NaN)],
      ["vars", () => sandbox.setEnvVars(untyped(undefined))],
      ["newPath", () => sandbox.moveFile("/x", untyped(5))],
      ["hostname", () => sandbox.getExposedPorts("\ud800")],
      ["mode", () => sandbox.writeFile("/tmp/x", "", { mode: untyped("u+x") })],
    ];
    for (const [field, call] of calls) {
      const error = await rejection(call());
      expect(error, `${call}`).toBeInstanceOf(ValidationFailedError);
      const { validationErrors } = (error as ValidationFailedError).context;
      expect(
        validationErrors.map((fault) => fault.field),
        `${call}`,
      ).toEqual([field]);
    }
    await process.kill();
  });

  test("X04 without a host name ports have URLs of the server's own domain", async () => {
    const sandbox = getSandbox(connection(), freshId());
    try {
      const { url } = await sandbox.exposePort(8080);
      expect(url).toMatch(/^http:\/\/8080-.*\.localhost/);
      expect(await sandbox.getExposedPorts()).toEqual([{ url, port: 8080, status: "active" }]);
    } finally {
      await sandbox.destroy();
    }
  });
});
