import type { Process } from "./processes.js";
import type * as wire from "./wire.js";

/** On a sandbox: which session a call belongs to. */
export interface InSession {
  /** Default: the sandbox's default session for commands; for files, paths are relative to `/workspace`. */
  sessionId?: string | undefined;
}

/** On a session: it is bound to itself, and one that is named makes no difference. */
export interface Bound {
  sessionId?: string | undefined;
}

/** Variables: text sets, `null` unsets, `undefined` counts as not given. */
export type Env = Record<string, string | null | undefined>;

/** What commands have in common. */
export interface BaseExecOptions {
  /** Milliseconds from the command's start until it and all its processes are killed. Default: the session's. */
  timeout?: number | undefined;
  /** Variables for this command only. */
  env?: Env | undefined;
  /** Working directory for this command only. */
  cwd?: string | undefined;
  /** What the command reads on stdin. Default: nothing. */
  stdin?: string | undefined;
  /** How output is given: as text (default) or as base64 of its bytes. */
  encoding?: "utf8" | "utf-8" | "base64" | (string & {}) | undefined;
  /** Aborting kills the command with all its processes; the call then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** Options of `exec`. */
export interface ExecOptions extends BaseExecOptions {
  /** Drop one final newline of stdout and of stderr, as shells' `$(…)` and execa do. Not with base64. Default true. */
  stripFinalNewline?: boolean | undefined;
  /**
   * Bytes kept of each output stream, the first and the last half of it. Default 64 MiB. With `onOutput` it is at least
   * 16 MiB, which the callbacks may lag behind.
   */
  maxOutputBytes?: number | undefined;
  /** Milliseconds that the command may wait for earlier ones of its session. Default: no bound. */
  queueTimeout?: number | undefined;
  /** Call `onOutput` while the command runs. Default: true if `onOutput` is given. */
  stream?: boolean | undefined;
  /** Called with each piece of output, byte-exact, while the command runs. */
  onOutput?: ((stream: "stdout" | "stderr", data: string) => void) | undefined;
  /** Called with the result just before `exec` returns it. */
  onComplete?: ((result: ExecResult) => void) | undefined;
  /** Accepted for code written for Cloudflare's SDK, and without effect. */
  origin?: "user" | "internal" | undefined;
  /** Called with the error just before `exec` rejects with it. */
  onError?: ((error: Error) => void) | undefined;
}

/** Options of `execStream`. */
export interface StreamOptions extends BaseExecOptions {
  /** Accepted and without effect: output is sent on when the command writes it. */
  bufferSize?: number | undefined;
}

/** How a command ended and what it wrote. */
export interface ExecResult {
  /** Whether the exit code is 0. */
  success: boolean;
  /** The shell's own status; 128+n when signal n ended the command. */
  exitCode: number;
  stdout: string;
  stderr: string;
  /** The text that ran. */
  command: string;
  /** Milliseconds from its start to its end, measured where it ran. */
  duration: number;
  /** When it started, ISO 8601. */
  timestamp: string;
  /** The session that ran it; none without a default session. */
  sessionId?: string;
  /** How `stdout` and `stderr` are written. */
  encoding: "utf8" | "base64";
  /** Some bytes were no UTF-8 and were replaced by U+FFFD; `encoding: "base64"` gives them. */
  invalidUtf8?: boolean;
  /** Bytes dropped from the middle of a stream that was longer than `maxOutputBytes`. */
  truncated?: { stdout?: number; stderr?: number; reason?: "diskFull" | "diskFailed" };
  /** The shell that ran it is gone; the next command of the session starts in a new one with the session's state. */
  shellRestarted?: boolean;
  /** The end of the command was not seen: its shell broke off without a status. */
  interrupted?: boolean;
  /** The sandbox's memory limit killed it: the limit and the most that was used, in bytes. */
  oom?: { limit: number; peak: number };
}

/** One event of `execStream`. */
export type ExecEvent = wire.ExecEvent;

/** Options of `startProcess`. */
export interface ProcessOptions {
  /** Milliseconds from its start until the process and all that it started are killed. Default: none. */
  timeout?: number | undefined;
  /** Variables for this process only. */
  env?: Env | undefined;
  /** Working directory, relative to the session's. */
  cwd?: string | undefined;
  /**
   * What it reads on stdin. A stream is passed on as it comes, and its end is the end of stdin. Default: nothing.
   * `"pipe"` keeps stdin open for `writeStdin`.
   */
  stdin?: string | ReadableStream<string | Uint8Array> | "pipe" | undefined;
  /** The process's name; no other of the sandbox may have it. Default: one is made up. */
  processId?: string | undefined;
  /** Forget the process 5 minutes after its end; else it is kept until it is cleaned up. Default true. */
  autoCleanup?: boolean | undefined;
  /** `"always"`: start it again after every end but a kill or its timeout. Default `"never"`. */
  restart?: "never" | "always" | undefined;
  /** Bytes kept of each output stream: the last ones. At least 128 KiB. Default 16 MiB. */
  maxLogBytes?: number | undefined;
  /** Accepted for code written for Cloudflare's SDK, and without effect: logs are text. */
  encoding?: string | undefined;
  /** Called once the process runs. */
  onStart?: ((process: Process) => void) | undefined;
  /** Called with each piece of its output. */
  onOutput?: ((stream: "stdout" | "stderr", data: string) => void) | undefined;
  /** Called with its exit code at its end. */
  onExit?: ((code: number) => void) | undefined;
  /** Called when it cannot be started, or followed to its end. */
  onError?: ((error: Error) => void) | undefined;
}

/** What `waitForPort` waits for. */
export interface WaitForPortOptions {
  /** `"http"` (default): it answers `GET path` with a status in the range; `"tcp"`: something listens. */
  mode?: "http" | "tcp" | undefined;
  /** For `http`. Default `/`. */
  path?: string | undefined;
  /** For `http`: the status, or both ends of a range, that counts. Default 200 to 399. */
  status?: number | { min: number; max: number } | undefined;
  /** Milliseconds to wait. Default: no bound. */
  timeout?: number | undefined;
  /** For `http`: the most milliseconds between two attempts. Default 500. */
  interval?: number | undefined;
}

/** The line that `waitForLog` waited for. */
export interface WaitForLogResult {
  /** The line without its end. */
  line: string;
  /** Where it was written. */
  stream: "stdout" | "stderr";
  /** For a RegExp: what it matched, with its groups. */
  match?: RegExpMatchArray;
}

/** What is kept of a process's output. */
export interface ProcessLogs {
  stdout: string;
  stderr: string;
  processId: string;
  /** Bytes before these that are no longer kept. */
  truncated?: { stdout?: number; stderr?: number; reason?: "diskFull" | "diskFailed" };
}

/** One event of `streamProcessLogs`. */
export type LogEvent = wire.ProcessLogEvent;

/** A process that is talked with over a WebSocket. Leaving it in whatever way leaves it running, its stdin open. */
export interface AttachedProcess {
  /**
   * What it reads, if it was started with `stdin: "pipe"`; closing this is the end of its stdin. What is written waits in
   * memory until the process reads it.
   */
  readonly stdin: WritableStream<string | Uint8Array>;
  /**
   * What is kept of its log, and then what it writes, to its end. Cancelling this closes the connection. Errors with
   * `ConnectionError` when that is lost before.
   */
  readonly output: ReadableStream<LogEvent>;
}

/** Options of `createSession`. */
export interface SessionOptions {
  /** Default: one is made up. */
  id?: string | undefined;
  /** A label for people. */
  name?: string | undefined;
  /** Variables of this session alone; they win over the sandbox's. */
  env?: Env | undefined;
  /** Where the session starts; created if missing. Default `/workspace`. */
  cwd?: string | undefined;
  /** `timeout` of each command that names none, in milliseconds. Default: none. */
  commandTimeoutMs?: number | undefined;
  /** Accepted for code written for Cloudflare's SDK, and without effect. */
  isolation?: boolean | undefined;
}

/** A session as `listSessions` tells it. */
export interface SessionInfo {
  id: string;
  name?: string;
  /** Working directory as of the last completed command. */
  cwd: string;
  createdAt: Date;
  /** Whether a command runs in it now. */
  busy: boolean;
  /** Commands that wait behind the running one. */
  waiting: number;
}

/** The answer of `deleteSession`. */
export interface DeleteSessionResult {
  success: boolean;
  sessionId: string;
  /** How many processes were ended that its commands had left in the background. */
  endedProcesses?: number;
  timestamp: string;
}

/** The sandbox as `getState` tells it. */
export interface SandboxState {
  /** `running`: being started; `healthy`: up; `stopping`: being destroyed; `stopped`: not there, its next use starts it. */
  status: "running" | "healthy" | "stopping" | "stopped";
  /** Milliseconds since 1970; 0 for a sandbox that does not exist. */
  lastChange: number;
  exitCode?: number;
}

/** How file content is written: text, base64, or, for reading, `none`: the bytes as a stream. */
export type FileEncoding = "utf8" | "utf-8" | "base64" | "none";

/** Options of `writeFile`. */
export interface WriteFileOptions {
  /** How a string holds the content. Default text. Bytes and streams are written as they are. */
  encoding?: "utf8" | "utf-8" | "base64" | (string & {}) | undefined;
  /** Permission bits, for instance `0o755`. Default: an existing file keeps its own, a new one gets 0o644. */
  mode?: number | undefined;
}

/** Options of `mkdir`. */
export interface MkdirOptions {
  /** Make missing parents too, and accept a directory that exists. Default false. */
  recursive?: boolean | undefined;
  /** Permission bits. Default 0o755. */
  mode?: number | undefined;
}

/** Options of `listFiles`. */
export interface ListFilesOptions {
  /** Descend into directories. Default false. */
  recursive?: boolean | undefined;
  /** Also names that begin with a dot. Default false. */
  includeHidden?: boolean | undefined;
}

/** A file's content. */
export interface ReadFileResult {
  success: boolean;
  path: string;
  content: string;
  /** How `content` is written. */
  encoding: "utf-8" | "base64";
  /** Whether the content is no UTF-8 text. */
  isBinary: boolean;
  mimeType: string;
  /** Bytes. */
  size: number;
  timestamp: string;
}

/** A file's bytes as a stream: what `readFile` returns with `encoding: "none"`. */
export interface ReadFileStreamResult {
  success: true;
  path: string;
  content: ReadableStream<Uint8Array>;
  isBinary: boolean;
  mimeType: string;
  /** Bytes. */
  size: number;
  timestamp: string;
}

/** The answer of a change of one path. */
export interface FileResult {
  success: boolean;
  path: string;
  timestamp: string;
}

/** The answer of `mkdir`. */
export interface MkdirResult extends FileResult {
  /** Whether missing parents were to be made too. */
  recursive: boolean;
}

/** The answer of `renameFile` and `moveFile`. */
export interface MoveFileResult extends FileResult {
  newPath: string;
}

/** The answer of `exists`. */
export interface FileExistsResult extends FileResult {
  exists: boolean;
}

/** One entry of a listing. */
export interface FileInfo {
  name: string;
  /** The bytes of `relativePath` in base64, where they are no UTF-8: no call can name it then, a command can. */
  pathBytes?: string;
  absolutePath: string;
  relativePath: string;
  type: "file" | "directory" | "symlink" | "other";
  /** Bytes. */
  size: number;
  /** ISO 8601. */
  modifiedAt: string;
  /** As `ls` writes it, without the type: `rw-r--r--`. */
  mode: string;
  permissions: { readable: boolean; writable: boolean; executable: boolean };
}

/** The answer of `listFiles`. */
export interface ListFilesResult extends FileResult {
  files: FileInfo[];
  count: number;
}

/** What `readFileStream` says of the file before its content. */
export interface FileMetadata {
  mimeType: string;
  /** Bytes. */
  size: number;
  isBinary: boolean;
  encoding: "utf-8" | "base64";
}

/** A piece of a file: text of text files, bytes of others. */
export type FileChunk = string | Uint8Array;

/** One event of `readFileStream`. */
export type FileStreamEvent = wire.FileEvent;
