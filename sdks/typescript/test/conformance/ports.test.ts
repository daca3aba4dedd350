import { getSandbox, SandboxSecurityError } from "sandcrab";
import { expect, inject } from "vitest";
import { connection, rejection, test } from "../support/sandbox.js";
import { startSite } from "../support/site.js";
import { visit } from "../support/visit.js";

test("C02 a port is exposed, visited and taken back", async ({ sandbox }) => {
  await sandbox.writeFile("/workspace/hello.txt", "hello from inside");
  const process = await sandbox.startProcess("python3 -m http.server 8080 --bind 127.0.0.1");
  await process.waitForPort(8080, { mode: "tcp", timeout: 10_000 });
  const hostname = `localhost:${new URL(inject("url")).port}`;
  const { url, port, name } = await sandbox.exposePort(8080, { hostname, name: "web", token: "my_own_token" });
  expect({ url, port, name }).toEqual({
    url: `http://8080-${sandbox.id}-my_own_token.${hostname}/`,
    port: 8080,
    name: "web",
  });
  expect(await visit(url, "/hello.txt")).toEqual({ status: 200, body: "hello from inside" });
  expect(await sandbox.getExposedPorts("p.example")).toEqual([
    { url: `https://8080-${sandbox.id}-my_own_token.p.example/`, port: 8080, status: "active" },
  ]);
  expect([await sandbox.isPortExposed(8080), await sandbox.isPortExposed(8081)]).toEqual([true, false]);
  expect(await sandbox.validatePortToken(8080, "my_own_token")).toBe(true);
  expect(await sandbox.validatePortToken(8080, "my_own_toke")).toBe(false);
  expect((await sandbox.exposePort(8080, { hostname })).url).toBe(url);
  // Once more with its own token, under another name.
  const named = await sandbox.exposePort(8080, { hostname, name: "site", token: "my_own_token" });
  expect(named).toEqual({ url, port: 8080, name: "site" });
  // One character is a token too; another port's is refused, and nothing is lost by asking.
  expect((await sandbox.exposePort(8081, { hostname, token: "z" })).url).toContain(`8081-${sandbox.id}-z.`);
  expect(await rejection(sandbox.exposePort(8080, { hostname, token: "z" }))).toMatchObject({
    context: { validationErrors: [{ field: "token", message: expect.stringContaining("in use by port 8081") }] },
  });
  expect((await visit(url, "/hello.txt")).status).toBe(200);
  const moved = await sandbox.exposePort(8080, { hostname, token: "another_token" });
  expect([(await visit(url, "/hello.txt")).status, (await visit(moved.url, "/hello.txt")).status]).toEqual([404, 200]);
  await sandbox.unexposePort(8080);
  expect((await visit(moved.url, "/hello.txt")).status).toBe(404);
  await sandbox.unexposePort(8080);
});

test("C08 an id that no host name can hold is refused, and so is a port that is none", async ({ sandbox }) => {
  const upper = getSandbox(connection(), "Upper");
  expect(await rejection(upper.exposePort(8080, { hostname: "localhost" }))).toBeInstanceOf(SandboxSecurityError);
  expect(await rejection(sandbox.exposePort(80, { hostname: "localhost" }))).toMatchObject({
    code: "INVALID_PORT_NUMBER",
    context: { port: 80 },
  });
});

test("containerFetch and fetch reach a port that is not exposed, with every form of their arguments", async ({
  sandbox,
}) => {
  await startSite(sandbox, 8080);
  const seen = async (answer: Promise<Response>) => (await answer).json();
  const headers = { "x-own": "1", connection: "x-hop", "x-hop": "1", authorization: "Bearer of-the-app" };
  const asked = await seen(sandbox.containerFetch(new Request("http://any.host/seen?a=%2F", { headers }), 8080));
  expect(asked).toMatchObject({
    method: "GET",
    url: "/seen?a=%2F",
    headers: { host: "localhost:8080", "x-own": "1", authorization: "Bearer of-the-app" },
  });
  for (const name of Object.keys(asked.headers)) expect(name).not.toMatch(/sandcrab|x-hop/);
  expect(await seen(sandbox.containerFetch("/seen", { method: "DELETE" }, 8080))).toMatchObject({ method: "DELETE" });
  expect(await seen(sandbox.containerFetch(new URL("http://a/seen"), 8080))).toMatchObject({ method: "GET" });
  const named = { headers: { "cf-container-target-port": "8080" } };
  expect((await seen(sandbox.fetch("http://a/seen", named))).headers).not.toHaveProperty("cf-container-target-port");
  expect((await sandbox.fetch(new Request("http://a/proxy/8080/none"))).status).toBe(404);
  // Without a port: 3000, where nothing listens.
  const closed = await sandbox.fetch("http://a/");
  expect([closed.status, await closed.json()]).toMatchObject([
    502,
    { code: "SERVICE_NOT_RESPONDING", context: { port: 3000 } },
  ]);

  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(new TextEncoder().encode("one, two"));
      controller.close();
    },
  });
  const echoed = await sandbox.containerFetch("http://a/echo", { method: "POST", body }, 8080);
  expect([echoed.status, await echoed.text()]).toEqual([201, "one, two"]);
  const packed = await sandbox.containerFetch("http://a/gzip", 8080);
  expect((await packed.text()).length).toBe(34_000);
  const login = await sandbox.containerFetch("http://a/login", 8080);
  expect([login.status, login.headers.get("location")]).toEqual([302, "/home"]);

  for (const port of [80, 65_536])
    expect(await rejection(sandbox.containerFetch("http://a/", port))).toMatchObject({
      name: "InvalidPortError",
      code: "INVALID_PORT_NUMBER",
      message: expect.stringMatching(/invalid port.*reserved/i),
    });
  expect(await rejection(sandbox.containerFetch("http://a/", 8080.5))).toMatchObject({ code: "VALIDATION_FAILED" });
  const aborted = sandbox.containerFetch("http://a/endless", { signal: AbortSignal.abort("gone") }, 8080);
  expect(await rejection(aborted)).toBe("gone");
});
