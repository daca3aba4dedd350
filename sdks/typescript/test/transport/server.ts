import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { connect, getSandbox, type Sandbox, type SandboxOptions } from "../../src/index.js";

/** One request as it arrived. */
export interface Received {
  method: string;
  path: string;
  query: URLSearchParams;
  headers: IncomingMessage["headers"];
  body: Buffer;
  /** The port of the connection's other end. */
  peer: number | undefined;
}

export type Handler = (request: Received, response: ServerResponse) => void | Promise<void>;

/** A real HTTP server on loopback that does what a test needs of a bad network; what it received is kept. */
export class EdgeServer implements AsyncDisposable {
  readonly received: Received[] = [];
  readonly #server: Server;

  private constructor(handler: Handler) {
    this.#server = createServer(async (incoming, response) => {
      const url = new URL(incoming.url ?? "/", "http://edge");
      const chunks: Buffer[] = [];
      for await (const chunk of incoming) chunks.push(chunk as Buffer);
      const request = {
        method: incoming.method ?? "",
        path: url.pathname,
        query: url.searchParams,
        headers: incoming.headers,
        body: Buffer.concat(chunks),
        peer: incoming.socket.remotePort,
      };
      this.received.push(request);
      await handler(request, response);
    });
  }

  static async start(handler: Handler, host = "127.0.0.1"): Promise<EdgeServer> {
    const edge = new EdgeServer(handler);
    edge.#server.listen(0, host);
    await once(edge.#server, "listening");
    return edge;
  }

  get url(): string {
    const { address, family, port } = this.#server.address() as AddressInfo;
    return `http://${family === "IPv6" ? `[${address}]` : address}:${port}`;
  }

  sandbox(options?: SandboxOptions): Sandbox {
    return getSandbox(connect({ url: this.url, apiKey: "key" }), "edge", options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }
}

/** Answers with JSON. */
export function json(response: ServerResponse, value: unknown, status = 200): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
}

/** Answers with an error of the API. */
export function failure(response: ServerResponse, code: string, httpStatus: number, context = {}): void {
  json(
    response,
    { code, message: `${code} of the edge`, context, httpStatus, timestamp: "2026-01-01T00:00:00.000Z" },
    httpStatus,
  );
}

/** A command's result. */
export function result(request: Received, fields: object = {}): object {
  const asked = request.body.length > 0 ? JSON.parse(request.body.toString()) : {};
  return {
    success: true,
    exitCode: 0,
    duration: 1.5,
    command: asked.command,
    execId: asked.execId,
    timestamp: "2026-01-01T00:00:00.000Z",
    encoding: "utf8",
    stdout: "",
    stderr: "",
    ...fields,
  };
}
