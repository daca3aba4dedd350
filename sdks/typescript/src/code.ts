import { cancellable, cancelUntilDone } from "./cancel.js";
import { jsonOf } from "./check.js";
import type * as code from "./code-types.js";
import { errorOf } from "./errors.js";
import { RETENTION_MS } from "./exec.js";
import { type Abort, resumableStream, type StreamKind } from "./exec-stream.js";
import { newExecId, segment } from "./ids.js";
import { parseSSEStream } from "./sse.js";
import type { Target } from "./target.js";
import { retrying } from "./transport.js";
import type * as wire from "./wire.js";

/** Makes a code context. */
export async function createCodeContext(
  target: Target,
  sessionId: string | undefined,
  options: code.CreateContextOptions,
): Promise<code.CodeContext> {
  const { language, cwd, envVars, timeout } = options;
  const body = { language, cwd, envVars, timeout, sessionId };
  return contextOf(await target.json<wire.CodeContext>("createCodeContext", "POST", "/code/contexts", body));
}

/** All code contexts, by age. */
export async function listCodeContexts(target: Target): Promise<code.CodeContext[]> {
  const path = "/code/contexts";
  const { contexts } = await target.read<wire.CodeContextList>("listCodeContexts", "GET", path);
  return contexts.map(contextOf);
}

/** Ends a code context. */
export function deleteCodeContext(target: Target, id: string): Promise<code.DeleteContextResult> {
  const path = `/code/contexts/${segment("contextId", id)}`;
  return target.json<wire.CodeContextDeleted>("deleteCodeContext", "DELETE", path);
}

function contextOf(context: wire.CodeContext): code.CodeContext {
  return { ...context, createdAt: new Date(context.createdAt), lastUsed: new Date(context.lastUsed) };
}

/** Runs code to its end. */
export async function runCode(
  target: Target,
  sessionId: string | undefined,
  text: string,
  options: code.RunCodeOptions,
): Promise<code.ExecutionResult> {
  const request = requestOf(sessionId, text, options);
  const { onStdout, onStderr, onResult, onError } = options;
  const result =
    onStdout || onStderr || onResult
      ? await followedResult(target, request, options)
      : await plainResult(target, request, options.signal);
  const whole = resultOf(result);
  if (whole.error) await onError?.(whole.error);
  return whole;
}

/** Runs code; returns its events as a stream that survives lost connections. */
export async function runCodeStream(
  target: Target,
  sessionId: string | undefined,
  text: string,
  options: code.RunCodeStreamOptions,
): Promise<ReadableStream<Uint8Array>> {
  return openStream(target, requestOf(sessionId, text, options), options.signal);
}

/** How a run's stream begins and ends. */
const RUN: StreamKind = { operation: "runCodeStream", first: "start", last: ["execution_complete", "error"] };

type Request = { [Field in keyof wire.RunCodeRequest]: wire.RunCodeRequest[Field] | undefined } & { runId: string };

function requestOf(sessionId: string | undefined, text: string, options: code.RunCodeStreamOptions): Request {
  const { context, language, envVars, timeout } = options;
  const request: Request = { code: text, runId: newExecId(), timeout };
  // A context knows its language, and where it stands.
  if (context) request.contextId = context.id;
  else {
    request.language = language as wire.RunCodeRequest["language"];
    request.sessionId = sessionId;
  }
  if (envVars) request.envVars = envVars as Record<string, string | null>;
  return request;
}

async function plainResult(target: Target, request: Request, signal?: AbortSignal): Promise<wire.RunCodeResult> {
  const created = target.ready();
  if (created) await created;
  const body = jsonOf(request);
  const sent = Date.now();
  const path = `${target.path}/code/run`;
  const work = (connection?: AbortSignal) =>
    retrying(
      target.transport,
      () => {
        if (Date.now() - sent >= RETENTION_MS) return knownResult(target, request.runId, connection);
        const call = { operation: "runCode", method: "POST", path, body, signal: connection };
        return target.transport.json<wire.RunCodeResult>(call);
      },
      connection,
    );
  return signal ? cancellable(signal, work, (pending) => cancel(target, request.runId, pending)) : work();
}

/** The result of a run that is known to the server; waits for its end. */
function knownResult(target: Target, runId: string, signal?: AbortSignal): Promise<wire.RunCodeResult> {
  const path = `${target.path}/code/runs/${runId}/result`;
  return target.transport.json({ operation: "runCode", method: "GET", path, signal });
}

async function followedResult(
  target: Target,
  request: Request,
  options: code.RunCodeOptions,
): Promise<wire.RunCodeResult> {
  const stream = await openStream(target, request, options.signal);
  for await (const event of parseSSEStream<wire.CodeEvent>(stream)) {
    const timestamp = Date.now();
    if (event.type === "stdout") await options.onStdout?.({ text: event.text, timestamp });
    else if (event.type === "stderr") await options.onStderr?.({ text: event.text, timestamp });
    else if (event.type === "result") await options.onResult?.(shown(event));
    else if (event.type === "error" && event.detail) throw errorOf(event.detail);
  }
  // The server has cut and counted by its rules; asking it keeps them in one place.
  return retrying(target.transport, () => knownResult(target, request.runId, options.signal), options.signal);
}

async function openStream(target: Target, request: Request, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>> {
  const created = target.ready();
  if (created) await created;
  const { runId } = request;
  const body = jsonOf(request);
  const sent = Date.now();
  const open = (cursor: string | undefined, connection?: AbortSignal): Promise<Response> => {
    const call = { operation: "runCodeStream", signal: connection };
    if (cursor === undefined && Date.now() - sent < RETENTION_MS) {
      return target.transport.stream({ ...call, method: "POST", path: `${target.path}/code/run/stream`, body });
    }
    const path = `${target.path}/code/runs/${runId}/stream?offset=${cursor ?? 0}`;
    return target.transport.stream({ ...call, method: "GET", path });
  };
  const work = (connection?: AbortSignal) => retrying(target.transport, () => open(undefined, connection), connection);
  const kill = (pending: () => boolean) => cancel(target, runId, pending);
  const first = await (signal ? cancellable(signal, work, kill) : work());
  const abort: Abort | undefined = signal && { signal, kill: () => kill(() => true) };
  return resumableStream(target.transport, first, open, abort, RUN);
}

/** Interrupts a run; returns when it has ended. */
function cancel(target: Target, runId: string, pending: () => boolean): Promise<void> {
  return cancelUntilDone(target, `${target.path}/code/runs/${runId}/cancel`, pending);
}

function resultOf(result: wire.RunCodeResult): code.ExecutionResult {
  const { runId: _, timestamp: __, error, results, ...rest } = result;
  const whole: code.ExecutionResult = { ...rest, results: results.map(shown) };
  if (error) whole.error = { ...error, message: error.value };
  return whole;
}

/** A result as people get it: a plain object, but that `formats` is no field that JSON or a loop would see. */
function shown(result: wire.CodeResult & { type?: string }): code.Result {
  const { type: _, ...forms } = result;
  const formats = () => Object.keys(forms).filter((name) => name !== "omitted");
  return Object.defineProperty(forms as object, "formats", { value: formats, enumerable: false }) as code.Result;
}
