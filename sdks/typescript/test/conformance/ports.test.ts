import { getSandbox, SandboxSecurityError } from "sandcrab";
import { expect, inject } from "vitest";
import { connection, rejection, test } from "../support/sandbox.js";
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
