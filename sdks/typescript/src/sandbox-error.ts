/** A failure as the API answers it. */
export interface ErrorFacts<Context = Record<string, unknown>> {
  /** What went wrong, for programs. */
  code: string;
  /** What went wrong, for people; names the thing at fault. */
  message: string;
  /** The operation that failed: `exec`, `readFile`, … */
  operation?: string | undefined;
  /** Facts by code: `{path}`, `{sessionId}`, `{validationErrors}`, … */
  context: Context;
  /** The HTTP status that belongs to the code. */
  httpStatus: number;
  /** When it happened, ISO 8601. */
  timestamp: string;
  /** What a person can do about it. */
  suggestion?: string | undefined;
  /** Where to read more. */
  documentation?: string | undefined;
}

/** The parent of every error that this package throws, an abort apart: that one is the platform's own. */
export class SandboxError<Context = Record<string, unknown>> extends Error {
  override name = "SandboxError";
  /** The failure as the server answered it. */
  readonly errorResponse: ErrorFacts<Context>;

  constructor(facts: ErrorFacts<Context>, options?: ErrorOptions) {
    super(facts.message, options);
    this.errorResponse = facts;
  }

  /** What went wrong, as a word that programs compare. */
  get code(): string {
    return this.errorResponse.code;
  }
  /** Facts by code. */
  get context(): Context {
    return this.errorResponse.context;
  }
  /** The HTTP status that belongs to the code. */
  get httpStatus(): number {
    return this.errorResponse.httpStatus;
  }
  /** The operation that failed. */
  get operation(): string | undefined {
    return this.errorResponse.operation;
  }
  /** What a person can do about it. */
  get suggestion(): string | undefined {
    return this.errorResponse.suggestion;
  }
  /** When it happened, ISO 8601. */
  get timestamp(): string {
    return this.errorResponse.timestamp;
  }
  /** Where to read more. */
  get documentation(): string | undefined {
    return this.errorResponse.documentation;
  }

  /** The fields above as one object; what `JSON.stringify` writes. */
  toJSON(): ErrorFacts<Context> & { name: string; stack: string | undefined } {
    return { name: this.name, ...this.errorResponse, stack: this.stack };
  }
}
