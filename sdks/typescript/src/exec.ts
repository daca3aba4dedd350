import { concat, decodeBase64, encodeBase64 } from "./base64.js";
import { cancellable, cancelUntilDone } from "./cancel.js";
import { jsonOf } from "./check.js";
import { CommandTimeoutError, errorOf } from "./errors.js";
import { resumableStream } from "./exec-stream.js";
import { newExecId } from "./ids.js";
import { parseSSEStream, responseToAsyncIterable } from "./sse.js";
import type { Target } from "./target.js";
import { retrying } from "./transport.js";
import type { BaseExecOptions, ExecEvent, ExecOptions, ExecResult, StreamOptions } from "./types.js";
import type * as wire from "./wire.js";

/**
 * How long the server keeps a finished command: until then its id cannot have been forgotten, and sending it again
 * attaches to the command instead of running it twice (contract S12).
 */
export const RETENTION_MS: number = 5 * 60 * 1000;

/** The most bytes of each stream that the error of a command out of time quotes. */
const EXCERPT_BYTES = 64 * 1024;
const NEWLINE = 10;

/** Runs a command and returns its result. */
export async function exec(
  target: Target,
  sessionId: string | undefined,
  command: string,
  options: ExecOptions = {},
): Promise<ExecResult> {
  let result: ExecResult;
  try {
    const request = requestOf(target, sessionId, command, options);
    request.queueTimeout = options.queueTimeout;
    request.maxOutputBytes = options.maxOutputBytes;
    const streamed = options.onOutput && options.stream !== false;
    const work = (streamed ? streamedResult : plainResult)(target, request, options);
    const whole = await (request.fresh ? work.catch((error) => timedOut(target, request, error)) : work);
    result = options.stripFinalNewline === false ? whole : withoutFinalNewlines(whole);
  } catch (error) {
    options.onError?.(error as Error);
    throw error;
  }
  options.onComplete?.(result);
  return result;
}

/** Runs a command; returns its events as a stream that survives lost connections. */
export async function execStream(
  target: Target,
  sessionId: string | undefined,
  command: string,
  options: StreamOptions = {},
): Promise<ReadableStream<Uint8Array>> {
  return openStream(target, requestOf(target, sessionId, command, options), options.signal);
}

type Request = { [Field in keyof wire.ExecRequest]: wire.ExecRequest[Field] | undefined } & { execId: string };

function requestOf(target: Target, sessionId: string | undefined, command: string, options: BaseExecOptions): Request {
  const { timeout, env, cwd, stdin, encoding } = options;
  const request: Request = { command, execId: newExecId(), timeout, cwd, stdin };
  if (sessionId !== undefined) request.sessionId = sessionId;
  else if (target.sessionless) request.fresh = true;
  if (env) request.env = env as Record<string, string | null>;
  if (encoding) request.encoding = encoding as wire.OutputEncoding;
  return request;
}

async function plainResult(target: Target, request: Request, { signal }: ExecOptions): Promise<wire.ExecResult> {
  const created = target.ready();
  if (created) await created;
  const body = jsonOf(request);
  const path = `${target.path}/exec`;
  const sent = Date.now();
  const work = (connection?: AbortSignal) =>
    retrying(
      target.transport,
      () => {
        if (Date.now() - sent >= RETENTION_MS) return resultOf(target, request, connection);
        return target.transport.json<wire.ExecResult>({
          operation: "exec",
          method: "POST",
          path,
          body,
          signal: connection,
        });
      },
      connection,
    );
  return signal ? cancellable(signal, work, (pending) => cancel(target, request.execId, pending)) : work();
}

/** The result of a command that is known to the server; waits for its end. */
function resultOf(target: Target, request: Request, signal?: AbortSignal): Promise<wire.ExecResult> {
  const path = `${target.path}/execs/${request.execId}/result?encoding=${request.encoding ?? "utf8"}`;
  return target.transport.json({ operation: "exec", method: "GET", path, signal });
}

async function streamedResult(target: Target, request: Request, options: ExecOptions): Promise<wire.ExecResult> {
  const stream = await openStream(target, request, options.signal);
  for await (const event of parseSSEStream<ExecEvent>(stream)) {
    if (event.type === "stdout" || event.type === "stderr") options.onOutput?.(event.type, event.data);
    else if (event.type === "error") throw errorOf(event.detail);
  }
  // The server has cut, replaced and counted by its rules; asking it keeps them in one place.
  return retrying(target.transport, () => resultOf(target, request, options.signal), options.signal);
}

async function openStream(
  target: Target,
  request: Request,
  signal: AbortSignal | undefined,
): Promise<ReadableStream<Uint8Array>> {
  const created = target.ready();
  if (created) await created;
  const { execId, encoding } = request;
  const body = jsonOf(request);
  const sent = Date.now();
  const open = (cursor: string | undefined, connection?: AbortSignal): Promise<Response> => {
    const call = { operation: "execStream", signal: connection };
    if (cursor === undefined && Date.now() - sent < RETENTION_MS) {
      return target.transport.stream({ ...call, method: "POST", path: `${target.path}/exec/stream`, body });
    }
    const [stdoutOffset = "0", stderrOffset = "0"] = cursor?.split("-") ?? [];
    const query = new URLSearchParams({ stdoutOffset, stderrOffset, encoding: encoding ?? "utf8" });
    return target.transport.stream({ ...call, method: "GET", path: `${target.path}/execs/${execId}/stream?${query}` });
  };
  const work = (connection?: AbortSignal) => retrying(target.transport, () => open(undefined, connection), connection);
  const kill = (pending: () => boolean) => cancel(target, execId, pending);
  const first = await (signal ? cancellable(signal, work, kill) : work());
  return resumableStream(target.transport, first, open, signal && { signal, kill: () => kill(() => true) });
}

/** Kills a command; returns when it is dead. */
export function cancel(target: Target, execId: string, pending: () => boolean): Promise<void> {
  return cancelUntilDone(target, `${target.path}/execs/${execId}/cancel`, pending);
}

/** Without a session nothing else depends on the command: that it ran out of time is its result, as of timeout(1). */
async function timedOut(target: Target, request: Request, error: unknown): Promise<wire.ExecResult> {
  if (!(error instanceof CommandTimeoutError)) throw error;
  const { timeout } = error;
  const { command, stdout = "", stderr = "" } = error.context;
  const excerpt = { stdout: encodeText(stdout), stderr: encodeText(stderr) };
  const isWhole = excerpt.stdout.length < EXCERPT_BYTES && excerpt.stderr.length < EXCERPT_BYTES;
  // What the error quotes is text, and its beginning.
  const output = isWhole && request.encoding !== "base64" ? excerpt : await outputOf(target, request);
  const gap = output.stderr.length === 0 || output.stderr.at(-1) === NEWLINE ? "" : "\n";
  const why = encodeText(`${gap}Command timed out after ${timeout} ms\n`);
  const encoding = request.encoding ?? "utf8";
  const written = encoding === "base64" ? encodeBase64 : (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return {
    success: false,
    exitCode: 124,
    stdout: written(output.stdout),
    stderr: written(concat([output.stderr, why])),
    command,
    duration: timeout,
    timestamp: error.timestamp,
    encoding,
  } as wire.ExecResult;
}

/** What is kept of a command's output. */
async function outputOf(target: Target, request: Request): Promise<{ stdout: Uint8Array; stderr: Uint8Array }> {
  const path = `${target.path}/execs/${request.execId}/stream?encoding=base64`;
  const call = { operation: "exec", method: "GET", path };
  const response = await retrying(target.transport, () => target.transport.stream(call));
  const pieces: Record<"stdout" | "stderr", Uint8Array[]> = { stdout: [], stderr: [] };
  for await (const event of responseToAsyncIterable<ExecEvent>(response))
    if (event.type === "stdout" || event.type === "stderr") pieces[event.type].push(decodeBase64(event.data));
  return { stdout: concat(pieces.stdout), stderr: concat(pieces.stderr) };
}

function encodeText(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function withoutFinalNewlines(result: wire.ExecResult): wire.ExecResult {
  if (result.encoding === "base64") return result;
  if (result.stdout.endsWith("\n")) result.stdout = result.stdout.slice(0, -1);
  if (result.stderr.endsWith("\n")) result.stderr = result.stderr.slice(0, -1);
  return result;
}
