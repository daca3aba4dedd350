import { expect, test } from "vitest";
import { checkSandboxId, checkSessionId, newExecId } from "../../src/ids.js";
import {
  connect,
  getSandbox,
  proxyToSandbox,
  SandboxError,
  SandboxSecurityError,
  ValidationFailedError,
} from "../../src/index.js";

const connection = connect({ url: "http://127.0.0.1:1" });

test.each(["user-123", "a", "Temp.1", "x_y~z", "a".repeat(63)])("sandbox id %j is kept as it is", (id) => {
  expect(getSandbox(connection, id).id).toBe(id);
});

test.each([
  "",
  "-a",
  "a-",
  "a b",
  "a/b",
  "a%b",
  "é",
  "www",
  "API",
  "root",
  "admin",
  "system",
  ".",
  "..",
  "a\n",
  "a".repeat(64),
])("X02 sandbox id %j is refused before any request", (id) => {
  expect(() => getSandbox(connection, id)).toThrow(SandboxSecurityError);
});

function thrownBy(call: () => unknown): unknown {
  try {
    call();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

test("X01 X02 a refused id is an error with every field, that names the field and quotes little", () => {
  const error = thrownBy(() => checkSandboxId("!/".repeat(5000))) as SandboxSecurityError;
  expect(error).toBeInstanceOf(SandboxError);
  expect(error).toMatchObject({ name: "SandboxSecurityError", code: "VALIDATION_FAILED", httpStatus: 400 });
  expect(error.context.validationErrors).toEqual([{ field: "id", message: "must have 1 to 63 characters" }]);
  expect(error.suggestion).toMatch(/\.$/);
  expect(error.message.length).toBeLessThan(200);
});

test("normalizeId lower-cases the id and nothing else does", () => {
  expect(getSandbox(connection, "My-App", { normalizeId: true }).id).toBe("my-app");
  expect(getSandbox(connection, "My-App").id).toBe("My-App");
});

test("B09 X02 session ids are literal or refused", () => {
  for (const good of ["prod", "user@example.com", "$(touch x)", "ünï", "a b"]) expect(checkSessionId(good)).toBe(good);
  for (const bad of ["", ".", "..", "a/b", "a\0b", "a\nb", "x".repeat(129), "é".repeat(65)]) {
    expect(() => checkSessionId(bad), JSON.stringify(bad)).toThrow(ValidationFailedError);
  }
});

test("S12 exec ids are unique and keep the server's rule, with and without the platform's crypto", () => {
  const crypto = globalThis.crypto;
  const ids = new Set<string>();
  for (const platform of [crypto, { getRandomValues: crypto.getRandomValues.bind(crypto) }, undefined]) {
    Object.defineProperty(globalThis, "crypto", { value: platform, configurable: true });
    for (let i = 0; i < 1000; i++) ids.add(newExecId());
  }
  Object.defineProperty(globalThis, "crypto", { value: crypto, configurable: true });
  expect(ids.size).toBe(3000);
  for (const id of ids) expect(id).toMatch(/^[A-Za-z0-9_-]{1,64}$/);
});

test("X02 what is no connection is named", async () => {
  const preview = new Request("http://8000-box-0123456789abcdef.localhost/");
  for (const wrong of [undefined, null, {}, "http://127.0.0.1:8787"] as unknown as (typeof connection)[]) {
    const named = { code: "VALIDATION_FAILED", context: { validationErrors: [{ field: "connection" }] } };
    expect(thrownBy(() => getSandbox(wrong, "box"))).toMatchObject(named);
    await expect(proxyToSandbox(preview, { Sandbox: wrong })).rejects.toMatchObject(named);
  }
});

test("connect refuses what is no server's URL and takes its defaults from the environment", () => {
  for (const url of ["nonsense", "ftp://host", "http://user:pass@host", "http://host/?a=1"]) {
    expect(() => connect({ url }), url).toThrow(ValidationFailedError);
  }
  expect(connect({ url: "https://host/below/" }).url).toBe("https://host/below");
  const before = process.env.SANDCRAB_URL;
  process.env.SANDCRAB_URL = "http://elsewhere:1234/";
  expect(connect().url).toBe("http://elsewhere:1234");
  delete process.env.SANDCRAB_URL;
  expect(connect().url).toBe("http://127.0.0.1:8787");
  if (before !== undefined) process.env.SANDCRAB_URL = before;
});
