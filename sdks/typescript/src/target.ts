import { jsonOf } from "./check.js";
import type { SandboxSetup } from "./sandbox.js";
import { type Call, retrying, type Transport } from "./transport.js";

/** One sandbox on one server, as the operations below it see it. */
export class Target {
  readonly path: string;
  #created: Promise<unknown> | undefined;

  constructor(
    readonly transport: Transport,
    readonly id: string,
    /** Whether a command without a session runs in a shell of its own. */
    readonly sessionless: boolean,
    /** What the caller wants of the sandbox; undefined leaves everything to the first use. */
    readonly setup: SandboxSetup | undefined,
  ) {
    this.path = `/v1/sandboxes/${encodeURIComponent(id)}`;
  }

  /**
   * Sees to it that the sandbox is what the caller asked for, before the first operation. Concurrent first operations
   * share one request; one that failed is made again by the next operation. Undefined when there is nothing to wait for.
   */
  ready(): Promise<unknown> | undefined {
    if (this.setup === undefined) return undefined;
    this.#created ??= this.#create().catch((error: unknown) => {
      this.#created = undefined;
      throw error;
    });
    return this.#created;
  }

  /** The sandbox is gone: its next use makes it anew. */
  forget(): void {
    this.#created = undefined;
  }

  #create(): Promise<unknown> {
    const body = jsonOf(this.setup);
    return retrying(this.transport, () =>
      this.transport.json({ operation: "createSandbox", method: "PUT", path: this.path, body }),
    );
  }

  /** Sends a request below the sandbox's path and returns its JSON answer. `body` is written as JSON. */
  async json<T>(operation: string, method: string, path: string, body?: unknown): Promise<T> {
    const created = this.ready();
    if (created) await created;
    return this.transport.json<T>(this.#call(operation, method, path, body));
  }

  /** As `json`, for what may be done twice: a lost connection leads to another try. */
  async read<T>(operation: string, method: string, path: string, body?: unknown): Promise<T> {
    const created = this.ready();
    if (created) await created;
    const call = this.#call(operation, method, path, body);
    return retrying(this.transport, () => this.transport.json<T>(call));
  }

  #call(operation: string, method: string, path: string, body: unknown): Call {
    return { operation, method, path: this.path + path, body: body === undefined ? undefined : jsonOf(body) };
  }
}
