import { InvalidPortNumberError, invalidField } from "./errors.js";
import { checkPort } from "./ports.js";
import { isUpgrade, onward } from "./preview.js";
import type { Target } from "./target.js";
import { wsConnect } from "./web-socket.js";

/** The port of requests that name none, as in Cloudflare's SDK. */
const DEFAULT_PORT = 3000;
/** Where `switchPort` of `@cloudflare/containers` writes the port that a request is for. */
const TARGET_PORT = "cf-container-target-port";

/** @internal The arguments of `containerFetch`, in each of its forms. */
export function portRequest(
  input: Request | string | URL,
  portOrInit?: number | RequestInit,
  port?: number,
): { request: Request; port: number } {
  const init = typeof portOrInit === "object" ? portOrInit : undefined;
  const named = typeof portOrInit === "number" ? portOrInit : port;
  let request: Request;
  try {
    // A path alone is one of the sandbox's.
    request = input instanceof Request && !init ? input : new Request(resolved(input), withDuplex(init));
  } catch (cause) {
    throw invalidField("request", `is none that can be made: ${(cause as Error).message}`);
  }
  return { request, port: reachable(named ?? askedPort(request)) };
}

/** What the server would refuse too, but in an answer that looks like the port's. */
function reachable(port: number): number {
  if (checkPort(port) >= 1024 && port <= 65535) return port;
  const reason = "must be an integer from 1024 to 65535; the lower ones are reserved";
  throw new InvalidPortNumberError({
    code: "INVALID_PORT_NUMBER",
    message: `Invalid port number: ${port} ${reason}`,
    operation: "containerFetch",
    context: { port, reason },
    httpStatus: 400,
    timestamp: new Date().toISOString(),
    suggestion: "Use an integer from 1024 to 65535.",
  });
}

function resolved(input: Request | string | URL): Request | string {
  return input instanceof Request ? input : new URL(input, "http://localhost").href;
}

/** Node refuses a stream as body without it. */
function withDuplex(init: RequestInit | undefined): RequestInit | undefined {
  return init?.body instanceof ReadableStream ? ({ duplex: "half", ...init } as RequestInit) : init;
}

/** The port that a request names itself: by `switchPort`, or by a path that begins with `/proxy/PORT`. */
function askedPort(request: Request): number {
  const named = request.headers.get(TARGET_PORT) ?? /^\/proxy\/(\d+)/.exec(new URL(request.url).pathname)?.[1];
  return named === null || named === undefined ? DEFAULT_PORT : Number(named);
}

/** @internal Sends a request to a port of the sandbox, exposed or not, and gives its answer as it is. */
export async function fetchPort(target: Target, request: Request, port: number): Promise<Response> {
  if (request.bodyUsed) throw invalidField("request", "its body has been read already");
  if (isUpgrade(request)) return wsConnect(target, request, port);
  const created = target.ready();
  if (created) await created;
  const headers = onward(request);
  headers.delete(TARGET_PORT);
  headers.set("x-sandcrab-sandbox", target.id);
  headers.set("x-sandcrab-port", String(port));
  const { pathname, search } = new URL(request.url);
  const { method, body, signal } = request;
  const call = { operation: "containerFetch", method, path: pathname + search, body: body ?? undefined, signal };
  return target.transport.pass(call, headers);
}
