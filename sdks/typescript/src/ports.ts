import { jsonOf, textOf } from "./check.js";
import { invalidField, PortNotExposedError, SandboxSecurityError } from "./errors.js";
import type { Target } from "./target.js";
import { retrying } from "./transport.js";
import type * as wire from "./wire.js";

/** Options of `exposePort`. */
export interface ExposePortOptions {
  /** The URL's domain, with its port where it is not the usual one: `"localhost:8787"`, `"preview.example.com"`. */
  hostname: string;
  /** A label for people. */
  name?: string | undefined;
  /**
   * 1-16 characters of a-z, 0-9 and `_`, used as they are: it is all that keeps strangers out, and a short one is soon
   * guessed. No other port of the sandbox may have it. Default: the one that the port has, else 16 random characters.
   */
  token?: string | undefined;
}

/** A port that is exposed. */
export interface ExposePortResult {
  /** Where it is reached by everyone who knows this. */
  url: string;
  port: number;
  name: string | undefined;
}

/** A port as `getExposedPorts` lists it. */
export interface ExposedPort {
  url: string;
  port: number;
  /** Whether the URL is in force. */
  status: "active";
}

/** @internal */
export async function exposePort(target: Target, port: number, options: ExposePortOptions): Promise<ExposePortResult> {
  checkHostLabel(target.id);
  const { hostname, name, token } = options;
  const body = { port, hostname, name, token, replace: true };
  const exposed = await target.json<wire.ExposedPort>("exposePort", "POST", "/ports", body);
  return { url: exposed.url, port: exposed.port, name: exposed.name };
}

/** Only such an id can stand in a host name, which knows no case. */
function checkHostLabel(id: string): void {
  if (/^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$/.test(id)) return;
  const fault = "can have no preview: only ids of a-z, 0-9 and - can stand in a host name";
  throw new SandboxSecurityError(`sandbox id ${JSON.stringify(id)} ${fault}`, fault);
}

/** @internal */
export async function getExposedPorts(target: Target, hostname: string | undefined): Promise<ExposedPort[]> {
  return (await portsOf(target, hostname)).map(({ url, port, status }) => ({ url, port, status }));
}

async function portsOf(target: Target, hostname: string | undefined): Promise<wire.ExposedPort[]> {
  const { transport, path } = target;
  const query = hostname === undefined ? "" : `?hostname=${encodeURIComponent(textOf("hostname", hostname))}`;
  const call = { operation: "getExposedPorts", method: "GET", path: `${path}/ports${query}` };
  const { ports } = await retrying(transport, () => transport.json<wire.ExposedPorts>(call));
  return ports;
}

/** @internal */
export async function validatePortToken(target: Target, port: number, token: string): Promise<boolean> {
  const { transport, path } = target;
  const call = {
    operation: "validatePortToken",
    method: "POST",
    path: `${path}/ports/${checkPort(port)}/validate`,
    body: jsonOf({ token }),
  };
  const { valid } = await retrying(transport, () => transport.json<wire.PortTokenValidity>(call));
  return valid;
}

/** @internal */
export async function unexposePort(target: Target, port: number): Promise<void> {
  const { transport, path } = target;
  const call = { operation: "unexposePort", method: "DELETE", path: `${path}/ports/${checkPort(port)}` };
  await transport.json(call).catch((error: unknown) => {
    if (!(error instanceof PortNotExposedError)) throw error;
  });
}

/** A number in a path must not turn into another path. @internal */
export function checkPort(port: number): number {
  if (Number.isInteger(port)) return port;
  throw invalidField("port", `Invalid port number: ${String(port)} is not an integer`);
}
