// The error classes of the package: one for each code of the API.

/**
 * Classes whose name is not the code's own in another case, and classes that stand below another. Both follow the
 * names that code written for Cloudflare's SDK catches.
 */
const names = {
  FILESYSTEM_ERROR: "FileSystemError",
  COMMAND_EXECUTION_ERROR: "CommandError",
  PORT_OPERATION_ERROR: "PortError",
  GIT_AUTH_FAILED: "GitAuthenticationError",
  GIT_CLONE_FAILED: "GitCloneError",
  GIT_CHECKOUT_FAILED: "GitCheckoutError",
  GIT_OPERATION_FAILED: "GitError",
  BACKUP_CREATE_FAILED: "BackupCreateError",
  BACKUP_RESTORE_FAILED: "BackupRestoreError",
};
/**
 * `error.name` where it is not the class's: what Cloudflare's SDK says for a code that has no class of its own there.
 * Programs compare it.
 */
const shownNames = {
  IS_DIRECTORY: "FileSystemError",
  NOT_DIRECTORY: "FileSystemError",
  NAME_TOO_LONG: "FileSystemError",
  READ_ONLY: "FileSystemError",
  NO_SPACE: "FileSystemError",
  RESOURCE_BUSY: "FileSystemError",
  COMMAND_PERMISSION_DENIED: "CommandError",
  INVALID_COMMAND: "CommandError",
  INVALID_PORT_NUMBER: "InvalidPortError",
  PYTHON_NOT_AVAILABLE: "SandboxError",
  JAVASCRIPT_NOT_AVAILABLE: "SandboxError",
  WATCH_START_ERROR: "SandboxError",
  INTERNAL_ERROR: "SandboxError",
};
const parents = {
  IS_DIRECTORY: "FILESYSTEM_ERROR",
  NOT_DIRECTORY: "FILESYSTEM_ERROR",
  NAME_TOO_LONG: "FILESYSTEM_ERROR",
  READ_ONLY: "FILESYSTEM_ERROR",
  NO_SPACE: "FILESYSTEM_ERROR",
  COMMAND_PERMISSION_DENIED: "COMMAND_EXECUTION_ERROR",
  COMMAND_TIMEOUT: "COMMAND_EXECUTION_ERROR",
  INVALID_COMMAND: "COMMAND_EXECUTION_ERROR",
  INVALID_PORT_NUMBER: "INVALID_PORT",
  MISSING_CREDENTIALS: "BUCKET_MOUNT_ERROR",
  INVALID_MOUNT_CONFIG: "BUCKET_MOUNT_ERROR",
};
/** What `context` holds, where the API names it. */
const contexts = {
  COMMAND_EXECUTION_ERROR: { command: "string", "exitCode?": "number", "stdout?": "string", "stderr?": "string" },
  COMMAND_TIMEOUT: { command: "string", timeout: "number", stdout: "string", stderr: "string", exitCode: "number" },
  FILE_NOT_FOUND: { path: "string" },
  FILESYSTEM_ERROR: { path: "string" },
  FILE_EXISTS: { path: "string" },
  PERMISSION_DENIED: { path: "string" },
  FILE_TOO_LARGE: { path: "string" },
  GIT_BRANCH_NOT_FOUND: { repository: "string", branch: "string" },
  INVALID_PORT: { port: "number", reason: "string" },
  PORT_NOT_EXPOSED: { port: "number" },
  PROCESS_NOT_FOUND: { processId: "string" },
  PROCESS_READY_TIMEOUT: { processId: "string", command: "string", condition: "string", timeout: "number" },
  PROCESS_EXITED_BEFORE_READY: { processId: "string", command: "string", condition: "string", exitCode: "number" },
  CONTEXT_NOT_FOUND: { contextId: "string" },
  SANDBOX_NOT_FOUND: { sandboxId: "string" },
  SESSION_NOT_FOUND: { sessionId: "string" },
  SESSION_ALREADY_EXISTS: { sessionId: "string" },
  SESSION_TERMINATED: { sessionId: "string", "exitCode?": "number | null" },
  SESSION_DESTROYED: { sessionId: "string", "exitCode?": "number | null" },
  RESOURCE_BUSY: { "sessionId?": "string", "waiting?": "number", "retryAfter?": "number" },
  QUOTA_EXCEEDED: { limit: "number | string", value: "number", scope: "string" },
  INTERPRETER_NOT_READY: { "retryAfter?": "number" },
  CONTAINER_UNAVAILABLE: { "reason?": "string", "retryAfterMs?": "number" },
  OPERATION_INTERRUPTED: { "reason?": "string" },
  BACKUP_NOT_FOUND: { backupId: "string" },
  BACKUP_EXPIRED: { backupId: "string", "expiredAt?": "string" },
  INVALID_BACKUP_CONFIG: { reason: "string" },
  BACKUP_CREATE_FAILED: { dir: "string", "backupId?": "string" },
  BACKUP_RESTORE_FAILED: { dir: "string", backupId: "string" },
  OOM_KILLED: { limit: "number", peak: "number" },
  VALIDATION_FAILED: { validationErrors: "{ field: string; message: string; code?: string }[]" },
};

export function classOf(code) {
  const pascal = code.toLowerCase().replace(/(?:^|_)([a-z])/g, (_, letter) => letter.toUpperCase());
  return names[code] ?? (pascal.endsWith("Error") ? pascal : `${pascal}Error`);
}

const facts = (context) =>
  context
    ? `{ ${Object.entries(context)
        .map(([name, type]) => `${name}: ${type}`)
        .join("; ")} }`
    : "Record<string, unknown>";

/** One class; a getter for each field of its context that its parent does not have. */
function errorClass(code) {
  const parent = parents[code];
  const context = contexts[code];
  const inherited = Object.keys(contexts[parent] ?? {}).map((name) => name.replace("?", ""));
  const own = Object.entries(context ?? {}).filter(([name]) => !inherited.includes(name.replace("?", "")));
  const lines = [`/** The class of \`${code}\`. */`];
  lines.push(`export class ${classOf(code)} extends ${parent ? classOf(parent) : `SandboxError<${facts(context)}>`} {`);
  lines.push(`  override name = "${shownNames[code] ?? classOf(code)}";`);
  if (parent && context) lines.push(`  declare readonly errorResponse: ErrorFacts<${facts(context)}>;`);
  for (const [name, type] of own) {
    const optional = name.endsWith("?");
    const field = name.replace("?", "");
    lines.push(`  /** \`context.${field}\`. */`);
    lines.push(`  get ${field}(): ${type}${optional ? " | undefined" : ""} {`);
    lines.push(`    return this.errorResponse.context.${field};`, "  }");
  }
  return [...lines, "}", ""].join("\n");
}

export function errorClasses(codes) {
  for (const code of Object.keys({ ...names, ...parents, ...shownNames, ...contexts })) {
    if (!codes.includes(code)) throw new Error(`scripts/errors.mjs names ${code}, which the API does not have`);
  }
  // A class must be declared before another extends it.
  const ordered = [...codes].sort((a, b) => (parents[a] ? 1 : 0) - (parents[b] ? 1 : 0));
  return `import { type ErrorFacts, SandboxError } from "../sandbox-error.js";

/** Every code that the API can answer with. */
export type ErrorCode =
${codes.map((code) => `  | "${code}"`).join("\n")};

${ordered.map(errorClass).join("\n")}
/** The class of each code. */
export const ERROR_CLASSES: Record<
  ErrorCode,
  // The context's type follows from the code, which is known at run time only.
  new (facts: ErrorFacts<any>, options?: ErrorOptions) => SandboxError<any>
> = {
${codes.map((code) => `  ${code}: ${classOf(code)},`).join("\n")}
};
`;
}
