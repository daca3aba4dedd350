import { ConnectionError, errorOf } from "./errors.js";
import type { Target } from "./target.js";
import type { AttachedProcess, LogEvent } from "./types.js";
import { opened, socketClass, type TellingSocket, ticketUrl } from "./web-socket.js";

const OPERATION = "attachProcess";
/** The longest piece of stdin in one message. */
const PIECE = 64 << 10;
/** `readyState` of a socket that is open. */
const OPEN = 1;

/** Talks with the process at `path` over a WebSocket. */
export async function attach(target: Target, path: string, signal?: AbortSignal): Promise<AttachedProcess> {
  signal?.throwIfAborted();
  const WebSocket = socketClass(target);
  const url = await ticketUrl(target, `${path}/attach`, {});
  signal?.throwIfAborted();
  const socket = new WebSocket(url) as TellingSocket;
  // Before anything is awaited: what arrives is kept from the first message on.
  const output = outputOf(socket, target, signal);
  await opened(socket, signal, (why) => new ConnectionError(OPERATION, target.transport.url, why ?? "no WebSocket"));
  return { stdin: stdinOf(socket, target), output };
}

/** What it writes, and its end. */
function outputOf(socket: TellingSocket, target: Target, signal: AbortSignal | undefined): ReadableStream<LogEvent> {
  let ended = false;
  return new ReadableStream<LogEvent>({
    start(controller) {
      const end = (how: () => void) => {
        if (ended) return;
        ended = true;
        signal?.removeEventListener("abort", aborted);
        how();
        socket.close();
      };
      const aborted = () => end(() => controller.error(signal?.reason));
      const lost = (why: string | undefined) =>
        end(() => controller.error(new ConnectionError(OPERATION, target.transport.url, why || "it was closed")));
      signal?.addEventListener("abort", aborted, { once: true });
      socket.addEventListener("message", ({ data }) => {
        if (ended || typeof data !== "string") return;
        const event = JSON.parse(data) as LogEvent;
        if (event.type === "error") return end(() => controller.error(errorOf(event.detail)));
        controller.enqueue(event);
        if (event.type === "exit") end(() => controller.close());
      });
      socket.addEventListener("error", ({ message }) => lost(message));
      socket.addEventListener("close", ({ reason }) => lost(reason));
    },
    cancel() {
      ended = true;
      socket.close();
    },
  });
}

/** What it reads. */
function stdinOf(socket: TellingSocket, target: Target): WritableStream<string | Uint8Array> {
  const encoder = new TextEncoder();
  const send = (message: string | Uint8Array<ArrayBuffer>) => {
    if (socket.readyState !== OPEN) throw new ConnectionError(OPERATION, target.transport.url, "it was closed");
    socket.send(message);
  };
  return new WritableStream<string | Uint8Array>({
    write(chunk) {
      const bytes = (typeof chunk === "string" ? encoder.encode(chunk) : chunk) as Uint8Array<ArrayBuffer>;
      for (let at = 0; at < bytes.length; at += PIECE) send(bytes.subarray(at, at + PIECE));
    },
    close() {
      send(JSON.stringify({ type: "end" }));
    },
  });
}
