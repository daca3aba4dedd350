import type * as code from "./code-types.js";

/** What runs code: a sandbox, or a session of it. */
export interface CodeRunner {
  createCodeContext(options?: code.CreateContextOptions): Promise<code.CodeContext>;
  runCode(text: string, options?: code.RunCodeOptions): Promise<code.ExecutionResult>;
  runCodeStream(text: string, options?: code.RunCodeStreamOptions): Promise<ReadableStream<Uint8Array>>;
  listCodeContexts(): Promise<code.CodeContext[]>;
  deleteCodeContext(contextId: string): Promise<code.DeleteContextResult>;
}

/** The code methods of a sandbox or session apart from the others. */
export class CodeInterpreter {
  readonly #runner: () => CodeRunner;

  constructor(runner: CodeRunner | (() => CodeRunner)) {
    this.#runner = typeof runner === "function" ? runner : () => runner;
  }

  /** As the method of the sandbox. */
  createCodeContext(options?: code.CreateContextOptions): Promise<code.CodeContext> {
    return this.#runner().createCodeContext(options);
  }

  /** As the method of the sandbox. */
  runCode(text: string, options?: code.RunCodeOptions): Promise<code.ExecutionResult> {
    return this.#runner().runCode(text, options);
  }

  /** As the method of the sandbox. */
  runCodeStream(text: string, options?: code.RunCodeStreamOptions): Promise<ReadableStream<Uint8Array>> {
    return this.#runner().runCodeStream(text, options);
  }

  /** As the method of the sandbox. */
  listCodeContexts(): Promise<code.CodeContext[]> {
    return this.#runner().listCodeContexts();
  }

  /** As the method of the sandbox. */
  deleteCodeContext(contextId: string): Promise<code.DeleteContextResult> {
    return this.#runner().deleteCodeContext(contextId);
  }
}
