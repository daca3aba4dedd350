import { jsonOf, optionsOf } from "./check.js";
import { type Connection, checkConnection } from "./connect.js";
import { SandboxNotFoundError } from "./errors.js";
import { checkSandboxId, checkSessionId } from "./ids.js";
import { ExecutionSession, Operations } from "./operations.js";
import { fetchPort, portRequest } from "./port-fetch.js";
import * as ports from "./ports.js";
import { Target } from "./target.js";
import { retrying } from "./transport.js";
import type * as types from "./types.js";
import { type WebSocketResponse, webSocketUrl, wsConnect } from "./web-socket.js";
import type * as wire from "./wire.js";

/** What a sandbox is made with, or is changed to at its next use. */
export interface SandboxSetup {
  /** Idle time until it sleeps: `"30s"`, `"5m"`, `"1h"`, or seconds. Default `"3m"`. */
  sleepAfter?: string | number | undefined;
  /** Never sleep. Default false. */
  keepAlive?: boolean | undefined;
  /** Labels for people and for filters. */
  labels?: Record<string, string> | undefined;
  /** Default: the one given to `connect`, else the server's. Fixed at creation. */
  image?: string | undefined;
  /** Bounds: bytes as a number or text such as `"512m"`, CPUs, processes and threads, open files of each process. Fixed at creation. */
  limits?:
    | {
        memory?: string | number | undefined;
        cpu?: number | undefined;
        disk?: string | number | undefined;
        pids?: number | undefined;
        openFiles?: number | undefined;
      }
    | undefined;
  /** The sandbox's variables at its creation. */
  env?: types.Env | undefined;
  /** `"loopback"` (default): its own and nothing else; `"host"`: the host's, without isolation. Fixed at creation. */
  network?: "loopback" | "host" | undefined;
  /**
   * What its code may ask of the kernel beyond what every program needs. Debuggers and lists of its own sockets (`ss`):
   * default true; libaio and `ping`: default false. Fixed at creation.
   */
  isolation?:
    | {
        debugging?: boolean | undefined;
        socketLists?: boolean | undefined;
        asyncIo?: boolean | undefined;
        ping?: boolean | undefined;
      }
    | undefined;
}

/** Options of `getSandbox`. */
export interface SandboxOptions extends SandboxSetup {
  /** Lower-case the id. Default false. */
  normalizeId?: boolean | undefined;
  /** False: each `exec` without a session is its own `bash -c`. Default true: they share the session `default`. */
  enableDefaultSession?: boolean | undefined;
  /** Accepted for code written for Cloudflare's SDK; nothing here waits for a container. */
  containerTimeouts?: Record<string, number | undefined> | undefined;
  /** Accepted likewise; there is one transport here. */
  transport?: string | undefined;
}

/**
 * The sandbox with this id. Makes no request: the first operation creates the sandbox if it does not exist.
 *
 * @throws SandboxSecurityError if the id breaks its rule; ValidationFailedError if there is no connection.
 */
export function getSandbox(connection: Connection, id: string, given?: SandboxOptions): Sandbox {
  const options = optionsOf(given);
  const { normalizeId, enableDefaultSession } = options;
  const { transport, ...defaults } = checkConnection(connection);
  // Only what the server knows is sent: an option of another package, or a mistyped one, breaks no sandbox.
  const { sleepAfter, keepAlive, labels, image = defaults.image, limits, env, network, isolation } = options;
  const setup: SandboxSetup = { sleepAfter, keepAlive, labels, image, limits, env, network, isolation };
  const wanted = Object.values(setup).some((value) => value !== undefined);
  const checked = checkSandboxId(id, normalizeId);
  return new Sandbox(new Target(transport, checked, enableDefaultSession === false, wanted ? setup : undefined));
}

/** An isolated Linux computer. The parameter is there for code that names one, and stands for nothing. */
export class Sandbox<_Env = unknown> extends Operations<types.InSession> {
  /** The sandbox's id. */
  readonly id: string;

  /** @internal */
  constructor(target: Target) {
    super(target, undefined);
    this.id = target.id;
  }

  /**
   * Makes a session: a shell of its own with its own variables and working directory.
   *
   * @throws SessionAlreadyExistsError if the id is in use.
   */
  async createSession(options?: types.SessionOptions): Promise<ExecutionSession> {
    const { id, name, env, cwd, commandTimeoutMs } = optionsOf(options);
    const body = { id, name, env, cwd, commandTimeoutMs };
    const session = await this.target.json<wire.SessionInfo>("createSession", "POST", "/sessions", body);
    return new ExecutionSession(this.target, session.id);
  }

  /** The session with this id: a live one as it stands, or one that its first command creates with defaults. */
  async getSession(sessionId: string): Promise<ExecutionSession> {
    return new ExecutionSession(this.target, checkSessionId(sessionId));
  }

  /**
   * Ends a session with everything that its commands left running, `nohup` or not, and frees its id; what `startProcess`
   * started lives on. The default session cannot be deleted.
   *
   * @throws SessionNotFoundError if there is none.
   */
  async deleteSession(sessionId: string): Promise<types.DeleteSessionResult> {
    const path = `/sessions/${encodeURIComponent(checkSessionId(sessionId))}`;
    return this.target.json<wire.SessionDeleted>("deleteSession", "DELETE", path);
  }

  /** All sessions, by age. */
  async listSessions(): Promise<types.SessionInfo[]> {
    type List = { sessions: wire.SessionInfo[] };
    const { sessions } = await this.target.read<List>("listSessions", "GET", "/sessions");
    return sessions.map((session) => ({ ...session, createdAt: new Date(session.createdAt) }));
  }

  /**
   * Exposes a port: whoever knows the URL reaches what listens on it inside the sandbox, over HTTP and WebSockets.
   *
   * A port that is exposed already keeps its URL; with another token it gets a new one, and the old is dead.
   *
   * @throws SandboxSecurityError if no host name can hold the id.
   */
  async exposePort(port: number, options?: ports.ExposePortOptions): Promise<ports.ExposePortResult> {
    return ports.exposePort(this.target, port, optionsOf(options));
  }

  /**
   * Takes a port back: its URL is dead at once, and what is under way over it is cut. One that is not exposed is no
   * error.
   */
  unexposePort(port: number): Promise<void> {
    return ports.unexposePort(this.target, port);
  }

  /** The exposed ports by number, with URLs of this domain; without one, of the server's own preview domain. */
  async getExposedPorts(hostname?: string): Promise<ports.ExposedPort[]> {
    return ports.getExposedPorts(this.target, hostname);
  }

  /** Whether a port is exposed. */
  async isPortExposed(port: number): Promise<boolean> {
    const exposed = await ports.getExposedPorts(this.target, "localhost");
    return exposed.some((one) => one.port === port);
  }

  /** Whether a port is exposed and has this token. */
  validatePortToken(port: number, token: string): Promise<boolean> {
    return ports.validatePortToken(this.target, port, token);
  }

  /** Changes the idle time until it sleeps: `"30s"`, `"5m"`, `"1h"`, or seconds. */
  setSleepAfter(sleepAfter: string | number): Promise<void> {
    return this.#change("setSleepAfter", { sleepAfter });
  }

  /** Changes whether it never sleeps. */
  setKeepAlive(keepAlive: boolean): Promise<void> {
    return this.#change("setKeepAlive", { keepAlive });
  }

  /** Gives it these labels in place of those that it has. */
  setLabels(labels: Record<string, string>): Promise<void> {
    return this.#change("setLabels", { labels });
  }

  async #change(operation: string, setup: SandboxSetup): Promise<void> {
    await this.target.read<wire.SandboxInfo>(operation, "PUT", "", setup);
  }

  /** Accepted, and without effect: there is one transport here. */
  async setTransport(_transport: string): Promise<void> {}

  /** Accepted, and without effect: nothing here waits for a container. */
  async setContainerTimeouts(_timeouts: Record<string, number | undefined>): Promise<void> {}

  /** Null: where a sandbox runs is the server's machine, which has no placement id. */
  async getContainerPlacementId(): Promise<string | null | undefined> {
    return null;
  }

  /**
   * Sends a request to a port of the sandbox, exposed or not, and gives its answer as it is, redirects and failures too; a
   * 502 of the code `SERVICE_NOT_RESPONDING` if nothing answers there. What listens sees the host `localhost:PORT`. A
   * request for a WebSocket gets the answer of `wsConnect`. Not from pages of browsers: no other page may read what a
   * sandbox answers.
   *
   * `containerFetch(request, port)`, `containerFetch(url, init, port)`; a URL may be a path. Default port: 3000.
   *
   * @throws ConnectionError if the server is not reached; ValidationFailedError if the request is none.
   */
  async containerFetch(
    requestOrUrl: Request | string | URL,
    portOrInit?: number | RequestInit,
    port?: number,
  ): Promise<Response> {
    const wanted = portRequest(requestOrUrl, portOrInit, port);
    return fetchPort(this.target, wanted.request, wanted.port);
  }

  /**
   * As `containerFetch`, to the port that the request names itself: by `switchPort` of `@cloudflare/containers`, or by a
   * path that begins with `/proxy/PORT`; else 3000.
   */
  async fetch(requestOrUrl: Request | string | URL, init?: RequestInit): Promise<Response> {
    return this.containerFetch(requestOrUrl, init);
  }

  /**
   * Ends all that runs in the sandbox, and keeps its files and exposed ports: its next use starts it again on them. With
   * SIGTERM (default) and SIGINT its processes have 5 seconds to end; with SIGKILL everything ends at once. Does nothing if
   * there is no such sandbox, or if it is stopped.
   */
  async stop(signal: "SIGTERM" | "SIGINT" | "SIGKILL" | 15 | 2 | 9 = "SIGTERM"): Promise<void> {
    const { transport, path } = this.target;
    const body = jsonOf({ signal: STOP_SIGNALS[signal] ?? signal });
    try {
      await transport.json({ operation: "stop", method: "POST", path: `${path}/stop`, body });
    } catch (error) {
      if (!(error instanceof SandboxNotFoundError)) throw error;
    }
  }

  /**
   * Opens a WebSocket to a port, exposed or not, at the path of the request's URL. Call `accept()` on the `webSocket` of
   * the answer once it has its listeners. A Worker may return the answer to its own caller, and all headers of the request
   * reach the port; elsewhere its subprotocols do, and browsers leave even those out.
   *
   * @throws ServiceNotRespondingError if no WebSocket opens there, InvalidPortNumberError.
   */
  wsConnect(request: Request, port: number): Promise<WebSocketResponse> {
    return wsConnect(this.target, request, port);
  }

  /**
   * A URL with which anything that knows WebSockets (a page in a browser, a library) opens one to a port, exposed or not:
   * once, within 30 s, without a key. `path` is what to ask the port for.
   */
  async webSocketUrl(port: number, path = "/"): Promise<string> {
    return webSocketUrl(this.target, port, path);
  }

  /**
   * Frees everything at once: processes, memory, disk, the id. A later use of the id is a new, empty sandbox. Does
   * nothing if there is no such sandbox.
   */
  async destroy(): Promise<void> {
    const { transport, path } = this.target;
    try {
      await transport.json({ operation: "destroy", method: "DELETE", path });
    } catch (error) {
      if (!(error instanceof SandboxNotFoundError)) throw error;
    }
    this.target.forget();
  }

  /** Where the sandbox stands. Asking does not create it. */
  async getState(): Promise<types.SandboxState> {
    const { transport, path } = this.target;
    try {
      const call = { operation: "getState", method: "GET", path };
      const info = await retrying(transport, () => transport.json<wire.SandboxInfo>(call));
      return { status: STATUS[info.status], lastChange: Date.parse(info.lastChange) };
    } catch (error) {
      if (error instanceof SandboxNotFoundError) return { status: "stopped", lastChange: 0 };
      throw error;
    }
  }
}

/** Their numbers, which are taken too. */
const STOP_SIGNALS: Record<string | number, string> = { 15: "SIGTERM", 2: "SIGINT", 9: "SIGKILL" };

/** The server's words in those of Cloudflare's SDK. */
const STATUS: Record<wire.SandboxInfo["status"], types.SandboxState["status"]> = {
  starting: "running",
  running: "healthy",
  destroying: "stopping",
  stopped: "stopped",
  quarantined: "stopped",
};
