import { invalidField } from "./errors.js";
import { nodeHttp } from "./node-http.js";
import { type Fetch, Transport } from "./transport.js";
import type { WebSocketClass } from "./web-socket.js";

/** Where a server is and how to reach it. */
export interface ConnectOptions {
  /** Default: the environment's `SANDCRAB_URL`, else `http://127.0.0.1:8787`, where `sandcrab serve` listens. */
  url?: string | undefined;
  /** Default: the environment's `SANDCRAB_API_KEY`. */
  apiKey?: string | undefined;
  /** The image of sandboxes that name none themselves. Default: the server's. */
  image?: string | undefined;
  /** What makes requests. Default: the platform's `fetch`, and Node's own client for what is no stream. */
  fetch?: Fetch | undefined;
  /** What makes WebSockets where the platform has none (Node 20), such as that of the package `ws`. */
  WebSocket?: WebSocketClass | undefined;
}

/** A server to get sandboxes from; takes the place of a Durable Object namespace in code written for Cloudflare's SDK. */
export class Connection {
  /** The server's URL without a final slash. */
  readonly url: string;
  /** The image of sandboxes that name none themselves. */
  readonly image: string | undefined;
  /** @internal */
  readonly transport: Transport;

  /** @internal */
  constructor(options: ConnectOptions) {
    this.url = baseUrl(options.url ?? environment("SANDCRAB_URL") ?? "http://127.0.0.1:8787");
    this.image = options.image;
    // Looked up at each call: a platform's fetch wants to be called as a function, and tools replace it.
    const fetch: Fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
    const ask = options.fetch ? undefined : nodeHttp(this.url);
    const apiKey = options.apiKey || environment("SANDCRAB_API_KEY");
    this.transport = new Transport(this.url, apiKey, fetch, ask, options.WebSocket);
  }
}

/**
 * A connection to a Sandcrab server. Makes no request.
 *
 * @throws ValidationFailedError if the URL is none of http or https.
 */
export function connect(options: ConnectOptions = {}): Connection {
  return new Connection(options);
}

/** What was given as a connection, if it is one: a binding that nobody has set is the commonest mistake. */
export function checkConnection(given: Connection): Connection {
  // By its shape: two copies of this package may meet in one program.
  if ((given as Connection | undefined)?.transport === undefined)
    throw invalidField("connection", "must be what connect() returns; `env.Sandbox` is none if nothing has set it");
  return given;
}

function baseUrl(text: string): string {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw invalidField("url", `${JSON.stringify(text)} is not a URL`);
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw invalidField("url", `${JSON.stringify(text)} does not begin with http:// or https://`);
  }
  if (url.search || url.hash || url.username || url.password) {
    throw invalidField("url", "must hold a host and a path only; the key goes into apiKey");
  }
  return url.href.replace(/\/+$/, "");
}

/** A variable of the process's environment where there is one. */
function environment(name: string): string | undefined {
  const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
  return process?.env?.[name] || undefined;
}
