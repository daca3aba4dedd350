import { expect, test } from "vitest";
import { errorOf, errorOfResponse } from "../../src/errors.js";
import { ERROR_CLASSES } from "../../src/generated/errors.js";
import * as sandcrab from "../../src/index.js";

const facts = (code: string, context: Record<string, unknown> = {}) => ({
  code,
  message: `${code} happened`,
  operation: "exec",
  context,
  httpStatus: 418,
  timestamp: "2026-01-02T03:04:05.678Z",
  suggestion: "Do better.",
});

test.each(Object.keys(ERROR_CLASSES))("X01 %s has an exported class of its own with every field", (code) => {
  const error = errorOf(facts(code, { path: "/a" }));
  expect(error).toBeInstanceOf(sandcrab.SandboxError);
  expect((sandcrab as Record<string, unknown>)[error.constructor.name]).toBe(error.constructor);
  expect(error).toMatchObject(facts(code, { path: "/a" }));
  expect(sandcrab).toHaveProperty(error.name);
  expect(JSON.parse(JSON.stringify(error))).toMatchObject({ name: error.name, ...facts(code, { path: "/a" }) });
});

test("X01 no two codes share a class", () => {
  const classes = Object.values(ERROR_CLASSES);
  expect(new Set(classes).size).toBe(classes.length);
});

test("X01 classes have the names that Cloudflare's SDK gives them, and its families", () => {
  expect(errorOf(facts("IS_DIRECTORY"))).toBeInstanceOf(sandcrab.FileSystemError);
  expect(errorOf(facts("COMMAND_TIMEOUT", { timeout: 5 }))).toBeInstanceOf(sandcrab.CommandError);
  expect(errorOf(facts("GIT_AUTH_FAILED")).name).toBe("GitAuthenticationError");
  expect(errorOf(facts("PORT_OPERATION_ERROR")).name).toBe("PortError");
});

test("X01 platform faults are told apart from the call's own, through their causes too", () => {
  const { isDurableObjectCodeUpdateReset, isPlatformTransientError } = sandcrab;
  const lost = new sandcrab.ConnectionError("exec", "http://a", new TypeError("fetch failed"));
  expect(lost).toBeInstanceOf(sandcrab.RPCTransportError);
  expect(lost).toMatchObject({ name: "RPCTransportError", kind: "connection_failed", originalMessage: "fetch failed" });
  const replaced = new Error("Durable Object reset because its code was updated.");
  for (const error of [lost, new Error("a", { cause: lost }), replaced, "Network connection lost."])
    expect(isPlatformTransientError(error), String(error)).toBe(true);
  expect(isPlatformTransientError(Object.assign(new Error("a"), { retryable: true }))).toBe(true);
  const overloaded = Object.assign(new Error("a"), { retryable: true, overloaded: true });
  for (const error of [overloaded, errorOf(facts("FILE_NOT_FOUND", { path: "/a" })), undefined, null, 1])
    expect(isPlatformTransientError(error), String(error)).toBe(false);
  expect([replaced, new Error("a", { cause: replaced }), lost].map(isDurableObjectCodeUpdateReset)).toEqual([
    true,
    true,
    false,
  ]);
});

test("facts of the context are properties of the class", () => {
  const error = errorOf(facts("SESSION_TERMINATED", { sessionId: "s", exitCode: 3 }));
  expect(error).toMatchObject({ sessionId: "s", exitCode: 3 });
  expect(errorOf(facts("FILE_NOT_FOUND", { path: "/x" }))).toMatchObject({ path: "/x" });
});

test("a code that this release does not know is a SandboxError with its code", () => {
  const error = errorOf(facts("FROM_THE_FUTURE"));
  expect(error).toMatchObject({ name: "SandboxError", code: "FROM_THE_FUTURE" });
});

test("X01 an answer that is not the API's is named as such", async () => {
  const response = new Response("<html>Bad gateway</html>", { status: 502 });
  const error = await errorOfResponse(response, "exec");
  expect(error).toBeInstanceOf(sandcrab.ServiceNotRespondingError);
  expect(error.context).toMatchObject({ status: 502, body: "<html>Bad gateway</html>" });
});

test.each(["toString", "__proto__", "constructor", "hasOwnProperty"])(
  "X01 a code that is a property of every object is a code like others: %s",
  (code) => {
    expect(errorOf(facts(code))).toMatchObject({ name: "SandboxError", code });
  },
);
