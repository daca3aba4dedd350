import type { Env } from "./types.js";

/** What a code context speaks; several names for the same. */
export type CodeLanguage = "python" | "python3" | "javascript" | "js" | "node" | "typescript" | "ts";

/** Options of `createCodeContext`. */
export interface CreateContextOptions {
  /** Default `"python"`. */
  language?: CodeLanguage | undefined;
  /** Where it starts; created if missing. Default: the session's working directory, else `/workspace`. */
  cwd?: string | undefined;
  /** Variables of this context alone; they win over the session's and the sandbox's. */
  envVars?: Env | undefined;
  /** `timeout` of each run that names none, in milliseconds. Default 60,000. */
  timeout?: number | undefined;
}

/** An interpreter that keeps variables, functions and imports. */
export interface CodeContext {
  id: string;
  language: "python" | "javascript" | "typescript";
  /** The directory that it started in. */
  cwd: string;
  createdAt: Date;
  /** When a run last began in it, at first when it was made. */
  lastUsed: Date;
}

/** Options of `runCodeStream`. */
export interface RunCodeStreamOptions {
  /** What runs it. Default: the language's own context of the session or sandbox. */
  context?: { id: string } | undefined;
  /** Without a context. Default `"python"`. */
  language?: CodeLanguage | undefined;
  /** Variables for this run only. */
  envVars?: Env | undefined;
  /** Milliseconds from its start until it is interrupted. Default: the context's, else 60,000. */
  timeout?: number | undefined;
  /** Aborting interrupts the code; the call then rejects with the signal's reason, and the context keeps its state. */
  signal?: AbortSignal | undefined;
}

/** Options of `runCode`. */
export interface RunCodeOptions extends RunCodeStreamOptions {
  /** Called with each piece of stdout while the code runs. */
  onStdout?: ((output: OutputMessage) => void | Promise<void>) | undefined;
  /** Called with each piece of stderr while the code runs. */
  onStderr?: ((output: OutputMessage) => void | Promise<void>) | undefined;
  /** Called with each result while the code runs. */
  onResult?: ((result: Result) => void | Promise<void>) | undefined;
  /** Called when the code fails, before `runCode` returns. */
  onError?: ((error: ExecutionError) => void | Promise<void>) | undefined;
}

/** Output of code as it comes. */
export interface OutputMessage {
  text: string;
  /** Milliseconds since 1970. */
  timestamp: number;
}

/** Why code ended before its end. */
export interface ExecutionError {
  /** The exception's class; `TimeoutError` when its time was over, `InterpreterExited` when the interpreter is gone. */
  name: string;
  /** What it says. */
  message: string;
  /** The same. */
  value: string;
  /** Line by line. */
  traceback: string[];
  /** The line of this run's code at which it happened, from 1. */
  lineNumber?: number;
}

/** The data of a chart, where an object offers it. */
export interface ChartData {
  type: "line" | "bar" | "scatter" | "pie" | "histogram" | "heatmap" | "unknown";
  title?: string;
  data: unknown;
  layout?: unknown;
  config?: unknown;
  library?: "matplotlib" | "plotly" | "altair" | "seaborn" | "unknown";
  /** Base64. */
  image?: string;
}

/** Something that code shows, in each form in which it offers itself. */
export interface Result {
  text?: string;
  html?: string;
  /** Base64. */
  png?: string;
  /** Base64. */
  jpeg?: string;
  svg?: string;
  latex?: string;
  markdown?: string;
  javascript?: string;
  // biome-ignore lint/suspicious/noExplicitAny: code written for Cloudflare's SDK reads fields of it.
  json?: any;
  chart?: ChartData;
  /** Forms without a field of their own, by media type. */
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  data?: any;
  /** Forms that were too long to be kept, with their length. */
  omitted?: Record<string, number>;
  /** The names of the forms that are there. */
  formats(): string[];
}

/** What a run wrote and shows. */
export interface ExecutionResult {
  code: string;
  logs: { stdout: string[]; stderr: string[] };
  results: Result[];
  error?: ExecutionError;
  /** How many runs have begun in the context, this one included. */
  executionCount: number;
  /** The context that ran it. */
  contextId: string;
  /** Milliseconds from its start to its end, measured where it ran. */
  duration: number;
  /** The context's interpreter was started anew: what earlier runs left in it is lost. */
  contextRestarted?: boolean;
  /** The sandbox's memory limit killed the interpreter: the limit and the most that was used, in bytes. */
  oom?: { limit: number; peak: number };
  /** Bytes of output that were dropped; the first 64 MiB of each stream are kept. */
  truncated?: { stdout?: number; stderr?: number; reason?: "diskFull" | "diskFailed" };
  /** Results that were dropped; the first 64 MiB of all are kept. */
  resultsDropped?: number;
  /** What code of earlier runs wrote since the last run's end, as a timer does; 16 KiB of each stream at most. */
  lateOutput?: { stdout?: string; stderr?: string; dropped?: number };
}

/** The answer of `deleteCodeContext`. */
export interface DeleteContextResult {
  success: boolean;
  contextId: string;
  timestamp: string;
}
