import { errorOf, ProcessExitedBeforeReadyError, ProcessReadyTimeoutError } from "./errors.js";
import { parseSSEStream } from "./sse.js";
import type { LogEvent, WaitForLogResult } from "./types.js";

/** How long a line that has no end yet is waited for before the pattern is tried on it, in milliseconds. */
const REST_OF_LINE_MS = 50;
/** Characters of one line that are looked at. */
const LONGEST_LINE = 64 * 1024;

type Stream = "stdout" | "stderr";

/** Looks for a line of a process's log that matches a pattern. Closes the log at its end. */
export async function searchLog(
  log: ReadableStream<Uint8Array>,
  processId: string,
  command: string,
  pattern: RegExp,
  timeout: number | undefined,
): Promise<WaitForLogResult> {
  // A pattern with these flags remembers where it matched last.
  const stateless = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, ""));
  const condition = `log ${pattern}`;
  const facts = (code: string, httpStatus: number, message: string) => ({
    code,
    message: `process ${JSON.stringify(processId)} ${message}`,
    operation: "waitForLog",
    httpStatus,
    timestamp: new Date().toISOString(),
    suggestion: "Read its logs.",
  });
  const stop = new AbortController();
  const lines: Record<Stream, string> = { stdout: "", stderr: "" };
  let late: ReturnType<typeof setTimeout> | undefined;
  let quiet: ReturnType<typeof setTimeout> | undefined;

  const matched = (stream: Stream, text: string): WaitForLogResult | undefined => {
    const line = text.endsWith("\r") ? text.slice(0, -1) : text;
    const match = stateless.exec(line);
    return match ? { line, stream, match } : undefined;
  };
  const unfinished = () =>
    (lines.stdout && matched("stdout", lines.stdout)) || (lines.stderr && matched("stderr", lines.stderr)) || undefined;
  const take = (stream: Stream, data: string): WaitForLogResult | undefined => {
    const pieces = data.split("\n");
    const last = pieces.pop() ?? "";
    for (const piece of pieces) {
      const found = matched(stream, (lines[stream] + piece).slice(0, LONGEST_LINE));
      lines[stream] = "";
      if (found) return found;
    }
    lines[stream] = (lines[stream] + last).slice(0, LONGEST_LINE);
    return undefined;
  };

  const search = async (): Promise<WaitForLogResult> => {
    for await (const event of parseSSEStream<LogEvent>(log, stop.signal)) {
      clearTimeout(quiet);
      if (event.type === "stdout" || event.type === "stderr") {
        const found = take(event.type, event.data);
        if (found) return found;
        // A prompt has no end: what stands there is tried when nothing follows it.
        quiet = setTimeout(() => {
          const prompt = unfinished();
          if (prompt) stop.abort(prompt);
        }, REST_OF_LINE_MS);
      } else if (event.type === "dropped") {
        lines[event.stream] = "";
      } else if (event.type === "error") {
        throw errorOf(event.detail);
      } else if (event.type === "exit") {
        const { exitCode } = event;
        const prompt = unfinished();
        if (prompt) return prompt;
        const message = `ended with exit code ${exitCode} before ${condition} came`;
        const context = { processId, command, condition, exitCode };
        throw new ProcessExitedBeforeReadyError({ ...facts("PROCESS_EXITED_BEFORE_READY", 500, message), context });
      }
    }
    throw new Error("the process's log broke off before its end");
  };

  if (timeout !== undefined) {
    const context = { processId, command, condition, timeout };
    const message = `did not become ready within its timeout of ${timeout} ms: ${condition} did not come`;
    late = setTimeout(
      () => stop.abort(new ProcessReadyTimeoutError({ ...facts("PROCESS_READY_TIMEOUT", 408, message), context })),
      timeout,
    );
  }
  try {
    return await search();
  } catch (error) {
    // The reason of the stop is either the prompt that was found or the error.
    if (error === stop.signal.reason && !(error instanceof Error)) return error as WaitForLogResult;
    throw error;
  } finally {
    clearTimeout(late);
    clearTimeout(quiet);
  }
}
