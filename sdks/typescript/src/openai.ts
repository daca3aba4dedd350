/**
 * A sandbox as the shell and the editor of an agent of `@openai/agents`: under the names that Cloudflare's SDK has for them.
 *
 * @module
 */
import {
  type Editor as AgentEditor,
  type Shell as AgentShell,
  type ApplyPatchResult,
  applyDiff,
  type ShellAction,
  type ShellOutputResult,
  type ShellResult,
} from "@openai/agents";

/** What these need of a sandbox or session. By form: another entry of the package has its own copy of the class's type. */
export interface AgentSandbox {
  exec(command: string, options: { timeout?: number | undefined; cwd: string }): Promise<CommandOutput>;
  readFile(path: string, options: { encoding: "utf-8" }): Promise<{ content: string }>;
  writeFile(path: string, content: string): Promise<unknown>;
  deleteFile(path: string): Promise<unknown>;
}

interface CommandOutput {
  stdout: string;
  stderr: string;
  exitCode: number;
}

/** A command that the agent ran. */
export interface CommandResult {
  command: string;
  stdout: string;
  stderr: string;
  /** Null if it ran out of time. */
  exitCode: number | null;
  /** Milliseconds since 1970. */
  timestamp: number;
}

/** A file that the agent changed, or tried to. */
export interface FileOperationResult {
  operation: "create" | "update" | "delete";
  path: string;
  status: "completed" | "failed";
  output: string;
  error?: string;
  /** Milliseconds since 1970. */
  timestamp: number;
}

/** What an agent asks an editor for. */
export interface Patch<Type extends string> {
  type: Type;
  /** Relative to the editor's root, or below it. */
  path: string;
  /** In the form that `applyDiff` of `@openai/agents` reads. */
  diff: string;
}

const WORKSPACE = "/workspace";

/** Runs an agent's commands in a sandbox or session, each of them in `/workspace`. */
export class Shell implements AgentShell {
  /** Every command so far. */
  results: CommandResult[] = [];
  readonly #sandbox: AgentSandbox;

  constructor(sandbox: AgentSandbox) {
    this.#sandbox = sandbox;
  }

  /** Runs commands one after the other, up to the first that runs out of time. */
  async run(action: ShellAction): Promise<ShellResult> {
    const output: ShellOutputResult[] = [];
    for (const command of action.commands) {
      const result = await this.#exec(command, action.timeoutMs);
      output.push(result);
      const { stdout, stderr, outcome } = result;
      const exitCode = outcome.type === "exit" ? outcome.exitCode : null;
      this.results.push({ command, stdout, stderr, exitCode, timestamp: Date.now() });
      if (outcome.type === "timeout") break;
    }
    return { output, providerData: { working_directory: WORKSPACE } };
  }

  async #exec(command: string, timeout: number | undefined): Promise<ShellOutputResult & { command: string }> {
    try {
      const { stdout, stderr, exitCode } = await this.#sandbox.exec(command, { timeout, cwd: WORKSPACE });
      return { command, stdout, stderr, outcome: { type: "exit", exitCode } };
    } catch (error) {
      const { code, context } = error as { code?: string; context?: { stdout?: string; stderr?: string } };
      // The agent hears of a time that is over, and of nothing else that keeps a command from running.
      if (code !== "COMMAND_TIMEOUT") throw error;
      const { stdout = "", stderr = "" } = context ?? {};
      return { command, stdout, stderr, outcome: { type: "timeout" } };
    }
  }
}

/** Applies an agent's patches to files of a sandbox or session, below `root`. */
export class Editor implements AgentEditor {
  /** Every change so far. */
  results: FileOperationResult[] = [];
  readonly #sandbox: AgentSandbox;
  readonly #root: string;

  constructor(sandbox: AgentSandbox, root: string = WORKSPACE) {
    this.#sandbox = sandbox;
    this.#root = root.replace(/(?<=.)\/+$/, "");
  }

  /** Makes a file. */
  createFile(operation: Patch<"create_file">): Promise<ApplyPatchResult | undefined> {
    return this.#change("create", operation.path, async (path) => {
      await this.#sandbox.writeFile(path, applyDiff("", operation.diff, "create"));
    });
  }

  /** Changes a file that is there. */
  updateFile(operation: Patch<"update_file">): Promise<ApplyPatchResult | undefined> {
    return this.#change("update", operation.path, async (path) => {
      const { content } = await this.#sandbox.readFile(path, { encoding: "utf-8" }).catch((cause) => {
        if (cause?.code !== "FILE_NOT_FOUND") throw cause;
        throw new Error(`Cannot update missing file: ${operation.path}`, { cause });
      });
      await this.#sandbox.writeFile(path, applyDiff(content, operation.diff));
    });
  }

  /** Deletes a file. */
  deleteFile(operation: Omit<Patch<"delete_file">, "diff">): Promise<ApplyPatchResult | undefined> {
    return this.#change("delete", operation.path, async (path) => {
      await this.#sandbox.deleteFile(path);
    });
  }

  async #change(
    operation: FileOperationResult["operation"],
    path: string,
    change: (path: string) => Promise<void>,
  ): Promise<ApplyPatchResult> {
    const timestamp = Date.now();
    try {
      await change(this.#resolve(path));
    } catch (error) {
      const output = `Failed to ${operation} ${path}`;
      const message = error instanceof Error ? error.message : String(error);
      this.results.push({ operation, path, status: "failed", output, error: message, timestamp });
      throw error;
    }
    const output = `${DONE[operation]} ${path}`;
    this.results.push({ operation, path, status: "completed", output, timestamp });
    return { status: "completed", output };
  }

  /** A path below the root: what an agent writes may lead out of it. */
  #resolve(path: string): string {
    const inside = path === this.#root || path.startsWith(`${this.#root}/`) ? path.slice(this.#root.length) : path;
    const parts: string[] = [];
    for (const part of inside.split("/")) {
      if (part === "..") {
        if (parts.pop() === undefined) throw new Error(`Operation outside workspace: ${path}`);
      } else if (part !== "" && part !== ".") parts.push(part);
    }
    return `${this.#root === "/" ? "" : this.#root}/${parts.join("/")}`;
  }
}

const DONE = { create: "Created", update: "Updated", delete: "Deleted" } as const;
