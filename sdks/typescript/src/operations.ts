import { optionsOf } from "./check.js";
import * as code from "./code.js";
import type * as codes from "./code-types.js";
import { invalidField } from "./errors.js";
import { exec, execStream } from "./exec.js";
import * as files from "./files.js";
import { type GitCheckoutOptions, type GitCheckoutResult, gitCheckout } from "./git.js";
import type { Process } from "./processes.js";
import * as processes from "./processes.js";
import type { Target } from "./target.js";
import type * as types from "./types.js";
import type * as wire from "./wire.js";

/** The sandbox's session or the bound one, as the last argument of the file methods. */
type In<Scope extends { sessionId?: unknown }> = Scope | Scope["sessionId"];

/** The methods that a sandbox and a session share. `Scope` is what tells a sandbox's methods which session is meant. */
export abstract class Operations<Scope extends types.InSession | types.Bound> {
  /** @internal */
  protected readonly target: Target;
  readonly #session: string | undefined;

  /** @internal */
  constructor(target: Target, session: string | undefined) {
    this.target = target;
    this.#session = session;
  }

  /** A session's own id wins: it is bound to itself. */
  #sessionOf(scope: In<Scope> | null | undefined): string | undefined {
    if (typeof scope === "string") return this.#session ?? scope;
    const { sessionId } = optionsOf<{ sessionId?: string | undefined }>(scope);
    return this.#session ?? sessionId;
  }

  /**
   * Runs a command in the session's shell and returns its result. What it changes of the shell (cwd, variables,
   * functions, …) is there in the session's next command.
   *
   * @throws CommandTimeoutError when `timeout` killed it. A command that fails is a result with its exit code.
   */
  async exec(command: string, options?: types.ExecOptions & Scope): Promise<types.ExecResult> {
    return exec(this.target, this.#sessionOf(options), command, options ?? {});
  }

  /**
   * Runs a command and returns its events as server-sent events while it runs; read them with `parseSSEStream`. A lost
   * connection is made again without a gap or a repeat. Cancelling the stream lets the command run on; aborting
   * `signal` kills it.
   */
  async execStream(command: string, options?: types.StreamOptions & Scope): Promise<ReadableStream<Uint8Array>> {
    return execStream(this.target, this.#sessionOf(options), command, options ?? {});
  }

  /**
   * Starts a command in the background; it runs when this returns. It begins with the session's exported variables and
   * working directory, and belongs to the sandbox: deleting the session changes nothing.
   *
   * @throws ProcessAlreadyExistsError if `processId` is in use.
   */
  async startProcess(command: string, options?: types.ProcessOptions & Scope): Promise<Process> {
    return processes.start(this.target, this.#sessionOf(options), command, options ?? {});
  }

  /** All processes of the sandbox by age, with those that ended lately. */
  listProcesses(_scope?: In<Scope>): Promise<Process[]> {
    return processes.list(this.target);
  }

  /** The process with this id; null if it is not known. */
  async getProcess(id: string, _scope?: In<Scope>): Promise<Process | null> {
    return processes.get(this.target, id);
  }

  /**
   * Ends a process with all that it started: by the signal, and 5 s later by SIGKILL. Nothing of it is left when this
   * returns. TERM, INT, QUIT, ABRT and KILL end it; any other signal is only sent.
   *
   * @throws ProcessNotFoundError if it has ended or is not known.
   */
  async killProcess(id: string, signal: string | number = "SIGTERM", _scope?: In<Scope>): Promise<void> {
    return processes.kill(this.target, id, signal);
  }

  /** Ends every process of the sandbox with all that they started, and says how many there were. */
  killAllProcesses(_scope?: In<Scope>): Promise<number> {
    return processes.killAll(this.target);
  }

  /** Forgets every process that has ended, and says how many there were. */
  cleanupCompletedProcesses(_scope?: In<Scope>): Promise<number> {
    return processes.cleanUp(this.target);
  }

  /**
   * What is kept of a process's output: the last 16 MiB of each stream unless it was started with `maxLogBytes`.
   *
   * @throws ProcessNotFoundError if it is not known.
   */
  async getProcessLogs(id: string, _scope?: In<Scope>): Promise<types.ProcessLogs> {
    return processes.logs(this.target, id);
  }

  /**
   * A process's output as server-sent events, from its beginning and then as it is written, to its exit; read them with
   * `parseSSEStream`. A lost connection is made again without a gap or a repeat. Neither cancelling the stream nor
   * aborting `signal` ends the process.
   *
   * @throws ProcessNotFoundError if it is not known.
   */
  async streamProcessLogs(
    id: string,
    options?: { signal?: AbortSignal | undefined } & Scope,
  ): Promise<ReadableStream<Uint8Array>> {
    return processes.streamLogs(this.target, id, optionsOf(options).signal);
  }

  /**
   * Sets variables; `undefined` and `null` unset. On a sandbox they reach all its sessions with their next command, on a
   * session that session alone.
   */
  async setEnvVars(vars: Record<string, string | null | undefined>): Promise<void> {
    if (typeof vars !== "object" || vars === null) throw invalidField("vars", "must be an object");
    const env = Object.fromEntries(Object.entries(vars).map(([name, value]) => [name, value ?? null]));
    const session = this.#session === undefined ? "" : `/sessions/${encodeURIComponent(this.#session)}`;
    await this.target.json("setEnvVars", "PATCH", `${session}/env`, { env });
  }

  /**
   * Makes a code context: an interpreter of its own, which starts with the session's exported variables in its working
   * directory.
   *
   * @throws PythonNotAvailableError or JavascriptNotAvailableError if the image lacks the language.
   */
  async createCodeContext(options?: codes.CreateContextOptions & Scope): Promise<codes.CodeContext> {
    return code.createCodeContext(this.target, this.#sessionOf(options), options ?? {});
  }

  /**
   * Runs code; variables, functions and imports stay in its context for the next run. Without a context it runs in the
   * language's own of the session or sandbox. What the code raises is in the result's `error`, its timeout too.
   */
  async runCode(text: string, options?: codes.RunCodeOptions & Scope): Promise<codes.ExecutionResult> {
    return code.runCode(this.target, this.#sessionOf(options), text, options ?? {});
  }

  /** As `runCode`, as server-sent events while it runs; read them with `parseSSEStream`. */
  async runCodeStream(text: string, options?: codes.RunCodeStreamOptions & Scope): Promise<ReadableStream<Uint8Array>> {
    return code.runCodeStream(this.target, this.#sessionOf(options), text, options ?? {});
  }

  /** All code contexts of the sandbox by age, also those that runs without a context have made. */
  listCodeContexts(): Promise<codes.CodeContext[]> {
    return code.listCodeContexts(this.target);
  }

  /** Ends a code context with everything that its code has started. */
  async deleteCodeContext(contextId: string): Promise<codes.DeleteContextResult> {
    return code.deleteCodeContext(this.target, contextId);
  }

  /**
   * Writes a file: all or nothing, whatever interrupts it. A file that is there stays the same file, so that watchers see
   * each write. Makes missing parent directories. A stream is sent on as it comes; browsers collect it first.
   */
  async writeFile(
    path: string,
    content: string | Uint8Array | ReadableStream<Uint8Array>,
    options?: types.WriteFileOptions & Scope,
  ): Promise<types.FileResult> {
    return files.writeFile(this.target, this.#sessionOf(options), path, content, options ?? {});
  }

  /** Reads a file: text as it is, anything else as base64. `encoding: "none"` gives its bytes as a stream. */
  readFile(path: string, options: { encoding: "none" } & Scope): Promise<types.ReadFileStreamResult>;
  readFile(
    path: string,
    options?: { encoding?: Exclude<types.FileEncoding, "none"> | undefined } & Scope,
  ): Promise<types.ReadFileResult>;
  async readFile(
    path: string,
    options?: { encoding?: types.FileEncoding | undefined } & Scope,
  ): Promise<types.ReadFileResult | types.ReadFileStreamResult> {
    const session = this.#sessionOf(options);
    if (options?.encoding === "none") return files.openFile(this.target, session, path);
    return files.readFile(this.target, session, path, options?.encoding);
  }

  /** Reads a file as server-sent events; read them with `streamFile` or `collectFile`. */
  async readFileStream(path: string, options?: In<Scope>): Promise<ReadableStream<Uint8Array>> {
    return files.readFileStream(this.target, this.#sessionOf(options), path);
  }

  /** Makes a directory. */
  async mkdir(path: string, options?: types.MkdirOptions & Scope): Promise<types.MkdirResult> {
    const { recursive, mode } = options ?? {};
    const body = { path, recursive, mode, sessionId: this.#sessionOf(options) };
    const made = await this.target.json<wire.FileChanged>("mkdir", "POST", "/files/mkdir", body);
    return { ...made, recursive: recursive === true };
  }

  /** Deletes a file or a link; a directory is refused with IsDirectoryError. */
  async deleteFile(path: string, options?: In<Scope>): Promise<types.FileResult> {
    const body = { path, sessionId: this.#sessionOf(options) };
    return this.target.json<wire.FileChanged>("deleteFile", "POST", "/files/delete", body);
  }

  /** Gives a file or directory another path. */
  async renameFile(oldPath: string, newPath: string, options?: In<Scope>): Promise<types.MoveFileResult> {
    const body = { path: oldPath, newPath, sessionId: this.#sessionOf(options) };
    return this.target.json("renameFile", "POST", "/files/rename", body);
  }

  /** Moves a file or directory to a path, or into a directory that exists. */
  async moveFile(sourcePath: string, destinationPath: string, options?: In<Scope>): Promise<types.MoveFileResult> {
    const body = { path: sourcePath, newPath: destinationPath, sessionId: this.#sessionOf(options) };
    return this.target.json("moveFile", "POST", "/files/move", body);
  }

  /**
   * Clones a repository with the sandbox's own git. It starts with the session's exported variables in its working
   * directory, and waits for no command of the session. What fails leaves nothing behind.
   *
   * @throws GitAuthenticationError, GitRepositoryNotFoundError, GitBranchNotFoundError, GitNetworkError,
   * InvalidGitUrlError, FileExistsError when `targetDir` is not empty, CommandTimeoutError after `cloneTimeoutMs`.
   */
  async gitCheckout(repoUrl: string, options?: GitCheckoutOptions & Scope): Promise<GitCheckoutResult> {
    return gitCheckout(this.target, this.#sessionOf(options), repoUrl, options ?? {});
  }

  /** Lists a directory by name. */
  async listFiles(path: string, options?: types.ListFilesOptions & Scope): Promise<types.ListFilesResult> {
    const { recursive, includeHidden } = options ?? {};
    const body = { path, recursive, includeHidden, sessionId: this.#sessionOf(options) };
    return this.target.read<wire.ListFilesResult>("listFiles", "POST", "/files/list", body);
  }

  /** Whether something stands at a path; a link counts by what it points to. */
  async exists(path: string, options?: In<Scope>): Promise<types.FileExistsResult> {
    const body = { path, sessionId: this.#sessionOf(options) };
    return this.target.read<wire.ExistsResult>("exists", "POST", "/files/exists", body);
  }
}

/** A shell in a sandbox that stays alive, with its own variables and working directory. */
export class ExecutionSession extends Operations<types.Bound> {
  /** The session's id. */
  readonly id: string;

  /** @internal */
  constructor(target: Target, id: string) {
    super(target, id);
    this.id = id;
  }
}
