import { attach } from "./attach.js";
import { jsonOf, millisecondsOf, optionsOf } from "./check.js";
import { errorOf, invalidField, ProcessNotFoundError } from "./errors.js";
import { resumableStream, type StreamKind } from "./exec-stream.js";
import type { ProcessStatus } from "./guards.js";
import { segment } from "./ids.js";
import { parseSSEStream } from "./sse.js";
import type { Target } from "./target.js";
import { retrying } from "./transport.js";
import type {
  AttachedProcess,
  LogEvent,
  ProcessLogs,
  ProcessOptions,
  WaitForLogResult,
  WaitForPortOptions,
} from "./types.js";
import { searchLog } from "./wait-for-log.js";
import type * as wire from "./wire.js";

/** A command that runs, or ran, in the background. Its fields say how it stood when it was asked about. */
export class Process {
  /** Its name. */
  readonly id: string;
  /** The process id of its shell inside the sandbox. */
  readonly pid: number | undefined;
  /** The text that runs. */
  readonly command: string;
  readonly status: ProcessStatus;
  /** When it was started, the last time. */
  readonly startTime: Date;
  readonly endTime: Date | undefined;
  /** 128+n when signal n ended it. */
  readonly exitCode: number | undefined;
  /** The session that it was started in, if one was named. */
  readonly sessionId: string | undefined;
  readonly #target: Target;

  /** @internal */
  constructor(target: Target, info: wire.ProcessInfo) {
    this.#target = target;
    this.id = info.id;
    this.pid = info.pid ?? undefined;
    this.command = info.command;
    this.status = info.status;
    this.startTime = new Date(info.startTime);
    this.endTime = info.endTime ? new Date(info.endTime) : undefined;
    this.exitCode = info.exitCode ?? undefined;
    this.sessionId = info.sessionId ?? undefined;
  }

  /**
   * Ends it with all that it started: by the signal, and 5 s later by SIGKILL. Nothing of it is left when this returns.
   *
   * @throws ProcessNotFoundError if it has ended.
   */
  kill(signal: string | number = "SIGTERM"): Promise<void> {
    return kill(this.#target, this.id, signal);
  }

  /** Where it stands now. */
  async getStatus(): Promise<ProcessStatus> {
    return (await describe(this.#target, "getStatus", this.id)).status;
  }

  /** What is kept of its output. */
  async getLogs(): Promise<{ stdout: string; stderr: string }> {
    const { stdout, stderr } = await logs(this.#target, this.id);
    return { stdout, stderr };
  }

  /**
   * Waits for a line of its output that contains a text or matches a pattern, in what is kept of it or to come.
   *
   * @throws ProcessReadyTimeoutError, ProcessExitedBeforeReadyError
   */
  async waitForLog(pattern: string | RegExp, timeout?: number): Promise<WaitForLogResult> {
    if (typeof pattern !== "string") {
      if (!(pattern instanceof RegExp)) throw invalidField("pattern", "must be a string or a RegExp");
      const within = millisecondsOf("timeout", timeout);
      return searchLog(await streamLogs(this.#target, this.id), this.id, this.command, pattern, within);
    }
    return wait<wire.LogLine>(this.#target, "waitForLog", this.id, "wait-for-log", { text: pattern }, timeout);
  }

  /**
   * Waits until a port of the sandbox is ready.
   *
   * @throws ProcessReadyTimeoutError, ProcessExitedBeforeReadyError
   */
  async waitForPort(port: number, options?: WaitForPortOptions): Promise<void> {
    const { mode, path, status, timeout, interval } = optionsOf(options);
    const range = typeof status === "number" ? { min: status, max: status } : status;
    const body = { port, mode, path, status: range, interval };
    await wait<wire.PortReady>(this.#target, "waitForPort", this.id, "wait-for-port", body, timeout);
  }

  /**
   * Waits for its end.
   *
   * @throws ProcessReadyTimeoutError
   */
  async waitForExit(timeout?: number): Promise<{ exitCode: number }> {
    const exit = await wait<wire.ProcessExit>(this.#target, "waitForExit", this.id, "wait-for-exit", {}, timeout);
    return { exitCode: exit.exitCode };
  }

  /**
   * Talks with it over one WebSocket, for what goes back and forth: a shell, a debugger, a REPL. Where much comes,
   * `streamProcessLogs` is the way: a WebSocket cannot be told to wait.
   *
   * @throws ProcessNotFoundError, ValidationFailedError where the platform has no WebSocket and `connect` was given none.
   */
  async attach(options?: { signal?: AbortSignal | undefined }): Promise<AttachedProcess> {
    const { signal } = optionsOf(options);
    // A WebSocket that does not open says not why.
    await describe(this.#target, "attachProcess", this.id);
    return attach(this.#target, pathOf(this.#target, this.id), signal);
  }

  /**
   * Writes to the stdin of a process that was started with `stdin: "pipe"`; returns when it has taken all of it.
   *
   * @throws ProcessNotFoundError if it has ended.
   */
  async writeStdin(data: string | Uint8Array): Promise<void> {
    await writeStdin(this.#target, this.id, data, false);
  }

  /** Closes its stdin: it reads the end. */
  async closeStdin(): Promise<void> {
    await writeStdin(this.#target, this.id, new Uint8Array(0), true);
  }
}

/** Starts a process. */
export async function start(
  target: Target,
  sessionId: string | undefined,
  command: string,
  options: ProcessOptions,
): Promise<Process> {
  const { stdin, onStart, onOutput, onExit, onError } = options;
  let process: Process;
  try {
    const { timeout, env, cwd, processId, autoCleanup, restart, maxLogBytes } = options;
    const interactive = stdin === "pipe" || stdin instanceof ReadableStream;
    const text = interactive ? undefined : stdin;
    const request = { command, sessionId, processId, timeout, env, cwd, autoCleanup, restart, maxLogBytes };
    const body = { ...request, stdin: text, interactive: interactive || undefined };
    process = new Process(target, await target.json<wire.ProcessInfo>("startProcess", "POST", "/processes", body));
  } catch (error) {
    onError?.(error as Error);
    throw error;
  }
  // Nobody waits for these: what goes wrong with them is told to `onError`.
  const failed = (error: unknown) => onError?.(error as Error);
  if (stdin instanceof ReadableStream) pump(target, process.id, stdin).catch(failed);
  onStart?.(process);
  if (onOutput || onExit) follow(target, process.id, options).catch(failed);
  return process;
}

async function follow(target: Target, id: string, { onOutput, onExit }: ProcessOptions): Promise<void> {
  for await (const event of parseSSEStream<LogEvent>(await streamLogs(target, id))) {
    if (event.type === "stdout" || event.type === "stderr") onOutput?.(event.type, event.data);
    else if (event.type === "exit") onExit?.(event.exitCode);
    else if (event.type === "error") throw errorOf(event.detail);
  }
}

async function pump(target: Target, id: string, stdin: ReadableStream<string | Uint8Array>): Promise<void> {
  const reader = stdin.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      await writeStdin(target, id, value, false);
    }
    await writeStdin(target, id, new Uint8Array(0), true);
  } catch (error) {
    await reader.cancel(error).catch(() => {});
    // A process that ends without reading all of its stdin is no fault.
    if (!(error instanceof ProcessNotFoundError)) throw error;
  }
}

async function writeStdin(target: Target, id: string, data: string | Uint8Array, end: boolean): Promise<void> {
  const path = `${pathOf(target, id)}/stdin?end=${end}`;
  const body = (typeof data === "string" ? new TextEncoder().encode(data) : data) as Uint8Array<ArrayBuffer>;
  await target.transport.json({ operation: "writeStdin", method: "POST", path, body, json: false });
}

/** All processes. */
export async function list(target: Target): Promise<Process[]> {
  const { processes } = await target.read<wire.ProcessList>("listProcesses", "GET", "/processes");
  return processes.map((info) => new Process(target, info));
}

/** One process, or null. */
export async function get(target: Target, id: string): Promise<Process | null> {
  try {
    return new Process(target, await describe(target, "getProcess", id));
  } catch (error) {
    if (error instanceof ProcessNotFoundError) return null;
    throw error;
  }
}

async function describe(target: Target, operation: string, id: string): Promise<wire.ProcessInfo> {
  return target.read<wire.ProcessInfo>(operation, "GET", `/processes/${segment("processId", id)}`);
}

/** Ends a process. */
export async function kill(target: Target, id: string, signal: string | number): Promise<void> {
  const name = typeof signal === "number" ? SIGNALS[signal] : signal;
  if (name === undefined) throw invalidField("signal", `there is no signal ${signal}`);
  await target.json("killProcess", "POST", `/processes/${segment("processId", id)}/kill`, { signal: name });
}

/** As the kernel numbers them on x86-64 and arm64: those that the server takes by name. */
const SIGNALS: Record<number, string> = {
  1: "SIGHUP",
  2: "SIGINT",
  3: "SIGQUIT",
  6: "SIGABRT",
  9: "SIGKILL",
  10: "SIGUSR1",
  12: "SIGUSR2",
  13: "SIGPIPE",
  14: "SIGALRM",
  15: "SIGTERM",
  17: "SIGCHLD",
  18: "SIGCONT",
  19: "SIGSTOP",
  20: "SIGTSTP",
  28: "SIGWINCH",
};

/** Ends all processes. */
export async function killAll(target: Target): Promise<number> {
  return (await target.json<wire.ProcessCount>("killAllProcesses", "DELETE", "/processes")).count;
}

/** Forgets those that have ended. */
export async function cleanUp(target: Target): Promise<number> {
  const path = "/completed-processes";
  return (await target.json<wire.ProcessCount>("cleanupCompletedProcesses", "DELETE", path)).count;
}

/** What is kept of a process's output. */
export async function logs(target: Target, id: string): Promise<ProcessLogs> {
  const kept = await target.read<wire.ProcessLogs>(
    "getProcessLogs",
    "GET",
    `/processes/${segment("processId", id)}/logs`,
  );
  const { stdout, stderr, processId, truncated } = kept;
  return { stdout, stderr, processId, ...(truncated && { truncated: truncated as ProcessLogs["truncated"] & {} }) };
}

const LOG: StreamKind = { operation: "streamProcessLogs", first: "process_info", last: ["exit", "error"] };

/** A process's log from its beginning to its end. */
export async function streamLogs(
  target: Target,
  id: string,
  signal?: AbortSignal,
): Promise<ReadableStream<Uint8Array>> {
  signal?.throwIfAborted();
  const created = target.ready();
  if (created) await created;
  const open = (cursor: string | undefined, connection?: AbortSignal): Promise<Response> => {
    const [stdoutOffset = "0", stderrOffset = "0"] = cursor?.split("-") ?? [];
    const path = `${pathOf(target, id)}/logs/stream?${new URLSearchParams({ stdoutOffset, stderrOffset })}`;
    return target.transport.stream({ operation: LOG.operation, method: "GET", path, signal: connection });
  };
  const first = await retrying(target.transport, () => open(undefined, signal), signal);
  // Nothing is killed by leaving.
  return resumableStream(target.transport, first, open, signal && { signal, kill: async () => {} }, LOG);
}

/** Waits on the server; after a lost connection for what is left of the time. */
async function wait<T>(
  target: Target,
  operation: string,
  id: string,
  what: string,
  body: object,
  timeout: number | undefined,
): Promise<T> {
  let begin: number | undefined;
  return retrying(target.transport, () => {
    const now = Date.now();
    begin ??= now;
    const left = timeout === undefined ? undefined : Math.max(0, timeout - (now - begin));
    const call = { operation, method: "POST", path: `${pathOf(target, id)}/${what}` };
    return target.transport.json<T>({ ...call, body: jsonOf({ ...body, timeout: left }) });
  });
}

function pathOf(target: Target, id: string): string {
  return `${target.path}/processes/${segment("processId", id)}`;
}
