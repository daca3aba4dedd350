import { ConnectionError, errorOfResponse, foreignAnswer } from "./errors.js";
import { type Answer, type Ask, fetchIsPlain } from "./node-http.js";
import type { WebSocketClass } from "./web-socket.js";

/** The part of `fetch` that this package uses. */
export type Fetch = (input: string, init?: RequestInit) => Promise<Response>;

/** Pauses before each new try after a lost connection, in milliseconds: 3 s to find a server that was never reached. */
const SHORT_PATIENCE: readonly number[] = [25, 50, 100, 200, 400, 800, 1600];
/** One that has answered before will come back: 11 s are long enough for a restart, also on a busy machine. */
const LONG_PATIENCE: readonly number[] = [...SHORT_PATIENCE, 1600, 1600, 1600, 1600, 1600];
/** A connection that held this long was a good one: the next loss starts at the first pause again. */
const GOOD_CONNECTION_MS = 1000;

/** One request. */
export interface Call {
  /** The method people called; errors name it. */
  operation: string;
  method: string;
  /** Path and query below the server's URL. */
  path: string;
  body?: BodyInit | undefined;
  /** Whether `body` is JSON; else it is raw bytes. Default true. */
  json?: boolean;
  signal?: AbortSignal | undefined;
}

/** A server and how to talk to it: one request per call, answers that are not 2xx become errors. */
export class Transport {
  readonly #fetch: Fetch;
  readonly #ask: Ask | undefined;
  readonly #apiKey: string | undefined;
  readonly #headers: Record<string, string>;
  readonly #jsonHeaders: Record<string, string>;
  #answered = false;

  constructor(
    readonly url: string,
    apiKey: string | undefined,
    fetch: Fetch,
    ask?: Ask,
    /** What makes WebSockets, if not the platform's own. */
    readonly WebSocket?: WebSocketClass | undefined,
  ) {
    this.#fetch = fetch;
    this.#ask = ask;
    this.#apiKey = apiKey;
    this.#headers = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` };
    this.#jsonHeaders = { ...this.#headers, "content-type": "application/json" };
  }

  /** Pauses in milliseconds before each new try after a lost connection. */
  get patience(): readonly number[] {
    return this.#answered ? LONG_PATIENCE : SHORT_PATIENCE;
  }

  /**
   * Sends a request and returns the answer with its body unread.
   *
   * @throws SandboxError if the server refuses, ConnectionError if there is no answer, the signal's reason on abort.
   */
  async send(call: Call): Promise<Response> {
    const init: RequestInit & { duplex?: "half" } = { method: call.method, headers: this.#headers };
    if (call.body !== undefined) {
      init.body = call.body;
      if (call.json !== false) init.headers = this.#jsonHeaders;
      // Node refuses a stream as body without it.
      if (call.body instanceof ReadableStream) init.duplex = "half";
    }
    if (call.signal) init.signal = call.signal;
    const response = await this.#answer(call, init);
    if (!response.ok) throw await errorOfResponse(response, call.operation);
    return response;
  }

  /**
   * Sends on somebody else's request, and returns the answer as it is, redirects and failures too.
   *
   * @throws ConnectionError if there is no answer, the signal's reason on abort.
   */
  async pass(call: Omit<Call, "json">, headers: Headers): Promise<Response> {
    headers.set("x-sandcrab-key", this.ownKey);
    const { method, body, signal } = call;
    const init: RequestInit & { duplex: "half" } = { method, headers, redirect: "manual", duplex: "half" };
    if (body) init.body = body;
    if (signal) init.signal = signal;
    return this.#answer(call, init);
  }

  /**
   * The value of `X-Sandcrab-Key`, for where `Authorization` is somebody else's. A server that wants no key takes any for
   * the word of a program: no page can send this header with a WebSocket.
   */
  get ownKey(): string {
    return this.#apiKey ?? "none";
  }

  async #answer(call: Pick<Call, "operation" | "path" | "signal">, init: RequestInit): Promise<Response> {
    let response: Response;
    try {
      response = await this.#fetch(this.url + call.path, init);
    } catch (error) {
      throw this.#lost(call, error);
    }
    this.#answered = true;
    return response;
  }

  /** Sends a request and returns its JSON answer. */
  async json<T>(call: Call): Promise<T> {
    const answer = (await this.#short(call)) ?? (await this.send(call));
    let text: string;
    try {
      text = await answer.text();
    } catch (error) {
      throw this.#lost(call, error);
    }
    try {
      return JSON.parse(text) as T;
    } catch {
      throw foreignAnswer(answer, call.operation, text);
    }
  }

  /** The short way, where the platform has one that takes this call. */
  async #short(call: Call): Promise<Answer | undefined> {
    const { method, path, body, signal } = call;
    if (!this.#ask || !(body === undefined || typeof body === "string" || body instanceof Uint8Array)) return undefined;
    if (!fetchIsPlain()) return undefined;
    const headers = body === undefined || call.json === false ? this.#headers : this.#jsonHeaders;
    let answer: Answer;
    try {
      answer = await this.#ask({ method, path, headers, body, signal });
    } catch (error) {
      throw this.#lost(call, error);
    }
    // Whoever sends us elsewhere has done nothing yet: fetch knows how to go there.
    if (answer.status >= 300 && answer.status < 400) return undefined;
    this.#answered = true;
    if (!answer.ok) throw await errorOfResponse(answer, call.operation);
    return answer;
  }

  #lost(call: Pick<Call, "operation" | "signal">, error: unknown): unknown {
    if (call.signal?.aborted) return call.signal.reason;
    return new ConnectionError(call.operation, this.url, error);
  }
}

/**
 * Does `work` again after a lost connection, until the transport's patience is used up. Only for work that may be done
 * twice, or that the server recognises as the same (contract X04).
 */
export async function retrying<T>(transport: Transport, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  for (let losses = 0; ; ) {
    const started = Date.now();
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof ConnectionError)) throw error;
      if (Date.now() - started >= GOOD_CONNECTION_MS) losses = 0;
      const pause = transport.patience[losses++];
      if (pause === undefined) throw error;
      await sleep(pause, signal);
    }
  }
}

/** Waits; rejects with the signal's reason if it aborts first. */
export function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const aborted = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", aborted);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", aborted, { once: true });
  });
}
