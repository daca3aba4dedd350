import { WebSocket } from "ws";

/**
 * A visitor with a WebSocket to the site: says `again` when it is greeted, and `bye` when that has come back. What it heard
 * and how it was closed, or the status of a refusal.
 */
export function talk(
  address: string,
  path: string,
  headers: Record<string, string>,
  protocols: string[] = [],
): Promise<string[] | string> {
  const socket = new WebSocket(new URL(path, address.replace(/^http/, "ws")), protocols, {
    headers,
    handshakeTimeout: 20_000,
  });
  const heard: string[] = [];
  return new Promise((resolve, reject) => {
    socket.on("message", (data) => {
      heard.push(String(data));
      socket.send(heard.length === 1 ? "again" : "bye");
    });
    socket.on("close", (code, reason) => resolve([...heard, `${code} ${reason}`]));
    socket.on("unexpected-response", (request, { statusCode }) => {
      resolve(String(statusCode));
      request.destroy();
    });
    socket.on("error", reject);
  });
}
