import { textOf } from "./check.js";
import { errorOfResponse, invalidField, ServiceNotRespondingError } from "./errors.js";
import { checkPort } from "./ports.js";
import { onward, SWITCHES_PROTOCOLS } from "./preview.js";
import type { Target } from "./target.js";
import { retrying } from "./transport.js";
import type * as wire from "./wire.js";

/** An open WebSocket to a port of a sandbox. */
export interface PortSocket {
  /** Begins to deliver what arrives. Until then it is kept, so that nothing is lost before there is a listener. */
  accept(): void;
  send(data: string | ArrayBuffer | ArrayBufferView): void;
  close(code?: number, reason?: string): void;
  /** 1: open, 2: closing, 3: closed. */
  readonly readyState: number;
  /** The subprotocol that was agreed on; empty or null if none was. */
  readonly protocol: string | null;
  addEventListener<Type extends keyof PortSocketEvents>(
    type: Type,
    listener: (event: PortSocketEvents[Type]) => void,
  ): void;
  removeEventListener<Type extends keyof PortSocketEvents>(
    type: Type,
    listener: (event: PortSocketEvents[Type]) => void,
  ): void;
}

/** What a `PortSocket` tells. */
export interface PortSocketEvents {
  /** Text, or bytes. */
  message: { data: string | ArrayBuffer };
  close: { code: number; reason: string; wasClean: boolean };
  error: object;
}

/** The answer of `wsConnect`: of status 101, and with the socket. A Worker may return it to its own caller. */
export type WebSocketResponse = Response & { readonly webSocket: PortSocket };

/** What makes WebSockets: the platform's class, or that of a package such as `ws`. */
export type WebSocketClass = new (url: string, protocols?: string[]) => WebSocketLike;

/** What every WebSocket has. */
export interface WebSocketLike {
  binaryType: string;
  readonly readyState: number;
  readonly protocol: string;
  send(data: string | ArrayBuffer | ArrayBufferView): void;
  close(code?: number, reason?: string): void;
}

/** @internal What it tells, in types of this package's own: each class has others. */
export interface TellingSocket extends WebSocketLike {
  addEventListener<Type extends keyof SocketEvents>(type: Type, listener: (event: SocketEvents[Type]) => void): void;
}

interface SocketEvents extends Omit<PortSocketEvents, "error"> {
  open: object;
  /** Only in Node does it say what is wrong. */
  error: { message?: string };
}

/** @internal */
export async function webSocketUrl(target: Target, port: number, path: string): Promise<string> {
  if (!textOf("path", path).startsWith("/"))
    throw invalidField("path", `${JSON.stringify(path)} does not begin with a slash`);
  return ticketUrl(target, connectPath(target, port), { path });
}

/** @internal The URL at which one WebSocket of the API can be opened, soon and without a key. */
export async function ticketUrl(target: Target, path: string, query: Record<string, string>): Promise<string> {
  const created = target.ready();
  if (created) await created;
  const { transport } = target;
  const call = { operation: "createTicket", method: "POST", path: "/v1/tickets", body: JSON.stringify({ path }) };
  // One that nobody uses is forgotten after half a minute.
  const { ticket } = await retrying(transport, () => transport.json<wire.Ticket>(call));
  const pairs = Object.entries({ ...query, ticket }).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  return `${transport.url.replace(/^http/, "ws")}${path}?${pairs.join("&")}`;
}

/** @internal */
export async function wsConnect(target: Target, request: Request, port: number): Promise<WebSocketResponse> {
  const url = new URL(request.url);
  const path = url.pathname + url.search;
  return SWITCHES_PROTOCOLS ? bySwitching(target, request, port, path) : byTicket(target, request, port, path);
}

function connectPath(target: Target, port: number): string {
  return `${target.path}/ports/${checkPort(port)}/connect`;
}

/** The WebSocket of a Worker, with the request's own headers. */
async function bySwitching(target: Target, request: Request, port: number, to: string): Promise<WebSocketResponse> {
  const created = target.ready();
  if (created) await created;
  const headers = onward(request);
  headers.set("upgrade", "websocket");
  const path = `${connectPath(target, port)}?path=${encodeURIComponent(to)}`;
  const call = { operation: "wsConnect", method: "GET", path, signal: request.signal };
  const response = await target.transport.pass(call, headers);
  if (response.status !== 101) throw await errorOfResponse(response, "wsConnect");
  return response as WebSocketResponse;
}

/** A WebSocket of the platform's own class, which takes no headers. */
async function byTicket(target: Target, request: Request, port: number, path: string): Promise<WebSocketResponse> {
  const { signal } = request;
  signal.throwIfAborted();
  const WebSocket = socketClass(target);
  const url = await webSocketUrl(target, port, path);
  signal.throwIfAborted();
  const wanted = request.headers.get("sec-websocket-protocol")?.split(",") ?? [];
  const protocols = wanted.map((protocol) => protocol.trim());
  const socket = new WebSocket(url, protocols) as TellingSocket;
  const webSocket = new HeldSocket(socket);
  await opened(socket, signal, (why) => openedNone(target, port, why));
  // No Response can be made with this status; this one is for reading, not for passing on.
  return Object.defineProperties(new Response(null), {
    status: { value: 101 },
    statusText: { value: "Switching Protocols" },
    ok: { value: false },
    webSocket: { value: webSocket },
  }) as WebSocketResponse;
}

/** @internal What makes WebSockets here. */
export function socketClass(target: Target): WebSocketClass {
  const platform = (globalThis as { WebSocket?: WebSocketClass }).WebSocket;
  const WebSocket = target.transport.WebSocket ?? platform;
  if (WebSocket !== undefined) return WebSocket;
  throw invalidField("WebSocket", "this platform has none: give connect() a class, such as that of the package ws");
}

/** @internal Resolves when a socket is open; rejects with what `failed` makes of the reason. */
export function opened(
  socket: TellingSocket,
  signal: AbortSignal | undefined,
  failed: (why: string | undefined) => Error,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const aborted = () => {
      reject(signal?.reason);
      socket.close();
    };
    const broken = (event: { message?: string; reason?: string }) => {
      signal?.removeEventListener("abort", aborted);
      reject(failed(event.message || event.reason));
    };
    signal?.addEventListener("abort", aborted, { once: true });
    socket.addEventListener("open", () => {
      signal?.removeEventListener("abort", aborted);
      resolve();
    });
    socket.addEventListener("error", broken);
    socket.addEventListener("close", broken);
  });
}

function openedNone(target: Target, port: number, why: string | undefined): Error {
  return new ServiceNotRespondingError({
    code: "SERVICE_NOT_RESPONDING",
    message: `wsConnect: port ${port} of sandbox ${target.id} opened no WebSocket${why ? `: ${why}` : ""}`,
    operation: "wsConnect",
    context: { port },
    httpStatus: 502,
    timestamp: new Date().toISOString(),
    suggestion: "Start the server inside the sandbox, and have it take WebSockets on this port and path.",
  });
}

/**
 * A WebSocket as Workers have it, which says nothing before `accept`: between the platform's `open` and a listener that
 * is added by whoever awaited it, messages may arrive.
 */
class HeldSocket extends EventTarget {
  readonly #socket: TellingSocket;
  #held: Event[] | undefined = [];

  constructor(socket: TellingSocket) {
    super();
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    const told = (event: Event) => (this.#held === undefined ? this.dispatchEvent(event) : this.#held.push(event));
    socket.addEventListener("message", ({ data }) => told(new MessageEvent("message", { data })));
    socket.addEventListener("error", () => told(new Event("error")));
    // Node 20 has no CloseEvent.
    socket.addEventListener("close", ({ code, reason, wasClean }) =>
      told(Object.assign(new Event("close"), { code, reason, wasClean })),
    );
  }

  accept(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const event of held) this.dispatchEvent(event);
  }

  send(data: string | ArrayBuffer | ArrayBufferView): void {
    this.#socket.send(data);
  }

  close(code?: number, reason?: string): void {
    this.#socket.close(code, reason);
  }

  get readyState(): number {
    return this.#socket.readyState;
  }

  get protocol(): string {
    return this.#socket.protocol;
  }

  get binaryType(): string {
    return this.#socket.binaryType;
  }
}
