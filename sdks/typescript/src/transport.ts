import { ConnectionError, errorOfResponse, foreignAnswer, invalidField, redirected } from "./errors.js";
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
    // What follows would show the key in its error. HTTP carries visible ASCII.
    if (apiKey !== undefined && !/^[!-~]+$/.test(apiKey))
      throw invalidField("apiKey", "must be visible ASCII without blanks (is there a line end at its end?)");
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
    const init: RequestInit & { duplex?: "half" } = { method: call.method, headers: this.#headers, redirect: "manual" };
    if (call.body !== undefined) {
      init.body = call.body;
      if (call.json !== false) init.headers = this.#jsonHeaders;
      // Node refuses a stream as body without it.
      if (call.body instanceof ReadableStream) init.duplex = "half";
    }
    if (call.signal) init.signal = call.signal;
    const response = await this.#answer(call, init);
    if (isRedirect(response)) {
      await response.body?.cancel().catch(() => {});
      throw redirected(this.url + call.path, response.status, response.headers.get("location"), call.operation);
    }
    if (!response.ok) throw await errorOfResponse(response, call.operation);
    return response;
  }

  /**
   * Opens a stream of events.
   *
   * @throws as `send`, and ServiceNotRespondingError if the answer is no event stream: a proxy's page, for instance.
   */
  async stream(call: Call): Promise<Response> {
    const response = await this.send(call);
    if (/^text\/event-stream\s*(;|$)/i.test(response.headers.get("content-type") ?? "")) return response;
    const text = await beginning(response);
    throw foreignAnswer(response, call.operation, text);
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
    this.#answered = true;
    if (isRedirect(answer)) throw redirected(answer.url, answer.status, answer.location, call.operation);
    if (!answer.ok) throw await errorOfResponse(answer, call.operation);
    return answer;
  }

  #lost(call: Pick<Call, "operation" | "signal">, error: unknown): unknown {
    if (call.signal?.aborted) return call.signal.reason;
    return new ConnectionError(call.operation, this.url, error);
  }
}

/**
 * A redirect is never followed: it would carry commands, variables and files to a place that the caller has not named,
 * and its answer would be believed. Pages see a response of the type `opaqueredirect`, with status 0.
 */
function isRedirect(answer: { status: number; type?: string; redirected?: boolean }): boolean {
  return (
    (answer.status >= 300 && answer.status < 400) || answer.type === "opaqueredirect" || answer.redirected === true
  );
}

/** The first bytes of a body that may have no end. */
async function beginning(response: Response): Promise<string> {
  const reader = response.body?.getReader();
  const first = await reader?.read().catch(() => undefined);
  await reader?.cancel().catch(() => {});
  return new TextDecoder().decode(first?.value?.subarray(0, 800));
}

/** A pause, made longer or shorter by up to a fifth, so that many clients do not come back at the same moment. */
export function jittered(pause: number): number {
  return pause * (0.8 + 0.4 * Math.random());
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
      await sleep(jittered(pause), signal);
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
