import { type Connection, checkConnection } from "./connect.js";
import { ConnectionError, invalidField } from "./errors.js";
import { isPreviewHost, noAnswer, oneHop } from "./preview-host.js";

/** Where the server tells how a body is encoded when it is asked to keep that from `fetch`. */
const HIDDEN_ENCODING = "x-sandcrab-content-encoding";

/**
 * Passes a request for a preview below your own domain on to its sandbox; null if it is for something else. For the
 * entry of a Worker or server that visitors of `https://{port}-{id}-{token}.your.domain/` reach.
 *
 * Bodies stream both ways, bytes, redirects and cookies pass unchanged, and so do failures: the answer is the server's,
 * or a 502 of the code `SERVICE_NOT_RESPONDING` if there is none. In Workers a WebSocket passes too; elsewhere no
 * `fetch` can open one, and the answer to it is a 502 that says so: Node has `proxyUpgrade` of `sandcrab/node`.
 *
 * `X-Forwarded-For` and `X-Forwarded-Proto` pass as the request has them. Where visitors reach your program directly, set
 * them on the request yourself: a visitor can write anything there.
 *
 * @param env what holds the connection as `Sandbox`.
 * @throws ValidationFailedError if the request's body has been read, or there is no connection; the signal's reason if
 *   the visitor has gone.
 */
export async function proxyToSandbox(request: Request, env: { Sandbox: Connection }): Promise<Response | null> {
  const url = new URL(request.url);
  if (!isPreviewHost(url.hostname)) return null;
  const { transport } = checkConnection(env.Sandbox);
  if (request.bodyUsed) throw invalidField("request", "its body has been read already, so it cannot be passed on");
  const asksForSocket = isUpgrade(request);
  if (asksForSocket && !SWITCHES_PROTOCOLS)
    return unanswered(NO_WEBSOCKETS, "In Node, use proxyUpgrade of sandcrab/node.");

  const headers = onward(request);
  headers.set("x-sandcrab-preview", url.host);
  headers.set("x-sandcrab-hide-encoding", "1");
  if (!headers.has("x-forwarded-proto")) headers.set("x-forwarded-proto", url.protocol.slice(0, -1));
  if (asksForSocket) headers.set("upgrade", "websocket");
  const path = url.pathname + url.search;
  const { method, body, signal } = request;
  try {
    const call = { operation: "proxyToSandbox", method, path, body: body ?? undefined, signal };
    return shown(await transport.pass(call, headers));
  } catch (error) {
    if (!(error instanceof ConnectionError)) throw error;
    // Where the server is, and why it is not there, is no visitor's business.
    return unanswered("the server of this preview did not answer", "Try again in a moment.");
  }
}

/** Only in Workers can `fetch` open a WebSocket and a `Response` hold one. */
export const SWITCHES_PROTOCOLS: boolean = "WebSocketPair" in globalThis;
const NO_WEBSOCKETS = "the program that passes requests on to this preview cannot pass on WebSockets";

/** Whether a request asks for a WebSocket. */
export function isUpgrade(request: Request): boolean {
  return request.headers.get("upgrade")?.toLowerCase() === "websocket";
}

/** A request's headers without what belongs to the connection that it came by, or is for us to say. */
export function onward(request: Request): Headers {
  const headers = new Headers(request.headers);
  // Every `fetch` says itself where it goes, and none can wait for a `100 Continue`.
  for (const name of [...oneHop(headers.get("connection")), "expect", "host"]) headers.delete(name);
  for (const name of [...headers.keys()]) if (name.startsWith("x-sandcrab-")) headers.delete(name);
  if (request.body === null) headers.delete("content-length");
  return headers;
}

/**
 * An answer as the visitor gets it. `fetch` decodes bodies, each platform in its own way, and leaves headers that are then
 * wrong; so the server hides the encoding from it, and the bytes arrive as they were.
 */
function shown(response: Response): Response {
  const encoding = response.headers.get(HIDDEN_ENCODING);
  if (encoding === null) return response;
  const headers = new Headers(response.headers);
  headers.delete(HIDDEN_ENCODING);
  headers.set("content-encoding", encoding);
  const { status, statusText } = response;
  // A Worker would encode the body once more.
  const init: ResponseInit & { encodeBody: "manual" } = { status, statusText, headers, encodeBody: "manual" };
  return new Response(response.body, init);
}

/** The answer to a visitor whose request could not be passed on. */
function unanswered(message: string, suggestion: string): Response {
  const headers = { "content-type": "application/json", "cache-control": "no-store" };
  return new Response(JSON.stringify(noAnswer(message, suggestion)), { status: 502, headers });
}
