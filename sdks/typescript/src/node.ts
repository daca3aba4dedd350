/**
 * Previews below your own domain from a server of `node:http` or `node:https`: what `proxyToSandbox` is where requests are
 * `Request`s, and WebSockets besides.
 *
 * @module
 */
import { type ClientRequest, type IncomingMessage, request as requestHttp, type ServerResponse } from "node:http";
import { request as requestHttps } from "node:https";
import { type Duplex, pipeline } from "node:stream";
import { isPreviewHost, noAnswer, oneHop, type PreviewServer } from "./preview-host.js";

/**
 * Passes a request for a preview on to its sandbox and its answer back; false if it is for something else. For the event
 * `request`. The visitor's address is appended to `X-Forwarded-For`.
 *
 * @param env what holds the connection, from `connect()`, as `Sandbox`.
 */
export function proxyRequest(
  request: IncomingMessage,
  response: ServerResponse,
  env: { Sandbox: PreviewServer },
): boolean {
  if (!isPreview(request)) return false;
  const onward = send(request, env.Sandbox, false);
  onward.on("response", (answer) => {
    // As they came, in their order and with their case.
    response.writeHead(answer.statusCode ?? 502, answer.statusMessage, withoutOneHop(answer));
    pipeline(answer, response, ignoreBreak);
  });
  onward.on("error", () => {
    if (response.headersSent) return void response.destroy();
    const body = refusal();
    response.writeHead(502, { "content-type": "application/json", "cache-control": "no-store" }).end(body);
  });
  // A visitor who goes away takes the request along.
  response.on("close", () => onward.destroy());
  request.pipe(onward);
  return true;
}

/**
 * Passes a WebSocket to a preview on to its sandbox; false if it is for something else, and the socket untouched. For the
 * event `upgrade`.
 *
 * @param env what holds the connection, from `connect()`, as `Sandbox`.
 */
export function proxyUpgrade(
  request: IncomingMessage,
  socket: Duplex,
  head: Uint8Array,
  env: { Sandbox: PreviewServer },
): boolean {
  if (!isPreview(request)) return false;
  const onward = send(request, env.Sandbox, true);
  onward.on("upgrade", (answer, sandbox, begun) => {
    socket.write(headOf(answer, answer.rawHeaders));
    if (begun.length > 0) socket.write(begun);
    if (head.length > 0) sandbox.write(head);
    pipeline(sandbox, socket, ignoreBreak);
    pipeline(socket, sandbox, ignoreBreak);
  });
  onward.on("response", (answer) => {
    socket.write(headOf(answer, [...withoutOneHop(answer), "connection", "close"]));
    pipeline(answer, socket, ignoreBreak);
  });
  onward.on("error", () => {
    socket.end(`HTTP/1.1 502 Bad Gateway\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n${refusal()}`);
  });
  socket.on("close", () => onward.destroy());
  socket.on("error", ignoreBreak);
  onward.end();
  return true;
}

function isPreview(request: IncomingMessage): boolean {
  return isPreviewHost((request.headers.host ?? "").replace(/:[0-9]*$/, ""));
}

/** Begins the request to the server; with a body, or with the wish for a WebSocket. */
function send(request: IncomingMessage, { transport }: PreviewServer, wantsSocket: boolean): ClientRequest {
  const headers = { ...request.headers };
  const gone = [...oneHop(headers.connection), "expect", "host", ...(wantsSocket ? ["content-length"] : [])];
  for (const name of Object.keys(headers)) {
    if (gone.includes(name) || name.startsWith("x-sandcrab-")) delete headers[name];
  }
  if (wantsSocket) Object.assign(headers, { connection: "upgrade", upgrade: request.headers.upgrade });
  // Node would write the body of a GET or DELETE without saying where it ends, and so begin a request of the visitor's.
  else if (request.headers["transfer-encoding"] !== undefined) headers["transfer-encoding"] = "chunked";

  headers["x-sandcrab-key"] = transport.ownKey;
  headers["x-sandcrab-preview"] = request.headers.host;
  const { remoteAddress, encrypted } = request.socket as typeof request.socket & { encrypted?: boolean };
  headers["x-forwarded-for"] = [headers["x-forwarded-for"] ?? [], remoteAddress ?? []].flat().join(", ");
  headers["x-forwarded-proto"] ??= encrypted ? "https" : "http";

  const { hostname, port, protocol, pathname } = new URL(transport.url);
  // Behind a slash a target that is no path leads nowhere else.
  const target = request.url?.startsWith("/") ? request.url : `/${request.url}`;
  const path = pathname.replace(/\/$/, "") + target;
  const host = hostname.replace(/^\[|\]$/g, "");
  return (protocol === "https:" ? requestHttps : requestHttp)({ host, port, path, method: request.method, headers });
}

/** An answer's headers, as names and values in one list, without those of one connection. */
function withoutOneHop({ rawHeaders, headers }: IncomingMessage): string[] {
  const gone = oneHop(headers.connection);
  return rawHeaders.filter((_, index) => !gone.includes(rawHeaders[index & ~1]?.toLowerCase() ?? ""));
}

function headOf(answer: IncomingMessage, raw: string[]): string {
  const lines = [`HTTP/1.1 ${answer.statusCode} ${answer.statusMessage}`];
  for (let index = 0; index < raw.length; index += 2) lines.push(`${raw[index]}: ${raw[index + 1]}`);
  return `${lines.join("\r\n")}\r\n\r\n`;
}

function refusal(): string {
  return JSON.stringify(noAnswer("the server of this preview did not answer", "Try again in a moment."));
}

/** Either side may end a stream at any time; the other is ended with it, and nobody is left to be told. */
function ignoreBreak(): void {}
