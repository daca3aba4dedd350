// Generated from openapi.json by `npm run generate`. Do not edit.
import { type ErrorFacts, SandboxError } from "../sandbox-error.js";

/** Every code that the API can answer with. */
export type ErrorCode =
  | "IS_DIRECTORY"
  | "NOT_DIRECTORY"
  | "NAME_TOO_LONG"
  | "INVALID_COMMAND"
  | "INVALID_PORT_NUMBER"
  | "INVALID_PORT"
  | "INVALID_GIT_URL"
  | "VALIDATION_FAILED"
  | "CUSTOM_DOMAIN_REQUIRED"
  | "INVALID_BACKUP_CONFIG"
  | "INVALID_MOUNT_CONFIG"
  | "MISSING_CREDENTIALS"
  | "BACKUP_EXPIRED"
  | "GIT_AUTH_FAILED"
  | "UNAUTHORIZED"
  | "PERMISSION_DENIED"
  | "COMMAND_PERMISSION_DENIED"
  | "READ_ONLY"
  | "FORBIDDEN"
  | "FILE_NOT_FOUND"
  | "COMMAND_NOT_FOUND"
  | "PROCESS_NOT_FOUND"
  | "PORT_NOT_EXPOSED"
  | "INVALID_TOKEN"
  | "GIT_REPOSITORY_NOT_FOUND"
  | "GIT_BRANCH_NOT_FOUND"
  | "CONTEXT_NOT_FOUND"
  | "BACKUP_NOT_FOUND"
  | "SANDBOX_NOT_FOUND"
  | "SESSION_NOT_FOUND"
  | "EXEC_NOT_FOUND"
  | "ROUTE_NOT_FOUND"
  | "METHOD_NOT_ALLOWED"
  | "PROCESS_READY_TIMEOUT"
  | "COMMAND_TIMEOUT"
  | "FILE_EXISTS"
  | "PORT_ALREADY_EXPOSED"
  | "PORT_IN_USE"
  | "RESOURCE_BUSY"
  | "SESSION_ALREADY_EXISTS"
  | "SANDBOX_ALREADY_EXISTS"
  | "PROCESS_ALREADY_EXISTS"
  | "EXEC_ALREADY_EXISTS"
  | "OPERATION_INTERRUPTED"
  | "SESSION_TERMINATED"
  | "EXEC_STDIN_CLOSED"
  | "SESSION_DESTROYED"
  | "FILE_TOO_LARGE"
  | "PAYLOAD_TOO_LARGE"
  | "UNSUPPORTED_MEDIA_TYPE"
  | "QUOTA_EXCEEDED"
  | "FILESYSTEM_ERROR"
  | "COMMAND_EXECUTION_ERROR"
  | "PROCESS_ERROR"
  | "PROCESS_EXITED_BEFORE_READY"
  | "PORT_OPERATION_ERROR"
  | "GIT_CLONE_FAILED"
  | "GIT_CHECKOUT_FAILED"
  | "GIT_OPERATION_FAILED"
  | "CODE_EXECUTION_ERROR"
  | "WATCH_START_ERROR"
  | "BACKUP_CREATE_FAILED"
  | "BACKUP_RESTORE_FAILED"
  | "BUCKET_MOUNT_ERROR"
  | "INTERNAL_ERROR"
  | "OOM_KILLED"
  | "UNSUPPORTED_TRANSFER_CODING"
  | "PYTHON_NOT_AVAILABLE"
  | "JAVASCRIPT_NOT_AVAILABLE"
  | "SERVICE_NOT_RESPONDING"
  | "GIT_NETWORK_ERROR"
  | "INTERPRETER_NOT_READY"
  | "CONTAINER_UNAVAILABLE"
  | "NO_SPACE";

/** The class of `INVALID_PORT`. */
export class InvalidPortError extends SandboxError<{ port: number; reason: string }> {
  override name = "InvalidPortError";
  /** `context.port`. */
  get port(): number {
    return this.errorResponse.context.port;
  }
  /** `context.reason`. */
  get reason(): string {
    return this.errorResponse.context.reason;
  }
}

/** The class of `INVALID_GIT_URL`. */
export class InvalidGitUrlError extends SandboxError<Record<string, unknown>> {
  override name = "InvalidGitUrlError";
}

/** The class of `VALIDATION_FAILED`. */
export class ValidationFailedError extends SandboxError<{ validationErrors: { field: string; message: string; code?: string }[] }> {
  override name = "ValidationFailedError";
  /** `context.validationErrors`. */
  get validationErrors(): { field: string; message: string; code?: string }[] {
    return this.errorResponse.context.validationErrors;
  }
}

/** The class of `CUSTOM_DOMAIN_REQUIRED`. */
export class CustomDomainRequiredError extends SandboxError<Record<string, unknown>> {
  override name = "CustomDomainRequiredError";
}

/** The class of `INVALID_BACKUP_CONFIG`. */
export class InvalidBackupConfigError extends SandboxError<{ reason: string }> {
  override name = "InvalidBackupConfigError";
  /** `context.reason`. */
  get reason(): string {
    return this.errorResponse.context.reason;
  }
}

/** The class of `BACKUP_EXPIRED`. */
export class BackupExpiredError extends SandboxError<{ backupId: string; expiredAt?: string }> {
  override name = "BackupExpiredError";
  /** `context.backupId`. */
  get backupId(): string {
    return this.errorResponse.context.backupId;
  }
  /** `context.expiredAt`. */
  get expiredAt(): string | undefined {
    return this.errorResponse.context.expiredAt;
  }
}

/** The class of `GIT_AUTH_FAILED`. */
export class GitAuthenticationError extends SandboxError<Record<string, unknown>> {
  override name = "GitAuthenticationError";
}

/** The class of `UNAUTHORIZED`. */
export class UnauthorizedError extends SandboxError<Record<string, unknown>> {
  override name = "UnauthorizedError";
}

/** The class of `PERMISSION_DENIED`. */
export class PermissionDeniedError extends SandboxError<{ path: string }> {
  override name = "PermissionDeniedError";
  /** `context.path`. */
  get path(): string {
    return this.errorResponse.context.path;
  }
}

/** The class of `FORBIDDEN`. */
export class ForbiddenError extends SandboxError<Record<string, unknown>> {
  override name = "ForbiddenError";
}

/** The class of `FILE_NOT_FOUND`. */
export class FileNotFoundError extends SandboxError<{ path: string }> {
  override name = "FileNotFoundError";
  /** `context.path`. */
  get path(): string {
    return this.errorResponse.context.path;
  }
}

/** The class of `COMMAND_NOT_FOUND`. */
export class CommandNotFoundError extends SandboxError<Record<string, unknown>> {
  override name = "CommandNotFoundError";
}

/** The class of `PROCESS_NOT_FOUND`. */
export class ProcessNotFoundError extends SandboxError<{ processId: string }> {
  override name = "ProcessNotFoundError";
  /** `context.processId`. */
  get processId(): string {
    return this.errorResponse.context.processId;
  }
}

/** The class of `PORT_NOT_EXPOSED`. */
export class PortNotExposedError extends SandboxError<{ port: number }> {
  override name = "PortNotExposedError";
  /** `context.port`. */
  get port(): number {
    return this.errorResponse.context.port;
  }
}

/** The class of `INVALID_TOKEN`. */
export class InvalidTokenError extends SandboxError<Record<string, unknown>> {
  override name = "InvalidTokenError";
}

/** The class of `GIT_REPOSITORY_NOT_FOUND`. */
export class GitRepositoryNotFoundError extends SandboxError<Record<string, unknown>> {
  override name = "GitRepositoryNotFoundError";
}

/** The class of `GIT_BRANCH_NOT_FOUND`. */
export class GitBranchNotFoundError extends SandboxError<{ repository: string; branch: string }> {
  override name = "GitBranchNotFoundError";
  /** `context.repository`. */
  get repository(): string {
    return this.errorResponse.context.repository;
  }
  /** `context.branch`. */
  get branch(): string {
    return this.errorResponse.context.branch;
  }
}

/** The class of `CONTEXT_NOT_FOUND`. */
export class ContextNotFoundError extends SandboxError<{ contextId: string }> {
  override name = "ContextNotFoundError";
  /** `context.contextId`. */
  get contextId(): string {
    return this.errorResponse.context.contextId;
  }
}

/** The class of `BACKUP_NOT_FOUND`. */
export class BackupNotFoundError extends SandboxError<{ backupId: string }> {
  override name = "BackupNotFoundError";
  /** `context.backupId`. */
  get backupId(): string {
    return this.errorResponse.context.backupId;
  }
}

/** The class of `SANDBOX_NOT_FOUND`. */
export class SandboxNotFoundError extends SandboxError<{ sandboxId: string }> {
  override name = "SandboxNotFoundError";
  /** `context.sandboxId`. */
  get sandboxId(): string {
    return this.errorResponse.context.sandboxId;
  }
}

/** The class of `SESSION_NOT_FOUND`. */
export class SessionNotFoundError extends SandboxError<{ sessionId: string }> {
  override name = "SessionNotFoundError";
  /** `context.sessionId`. */
  get sessionId(): string {
    return this.errorResponse.context.sessionId;
  }
}

/** The class of `EXEC_NOT_FOUND`. */
export class ExecNotFoundError extends SandboxError<Record<string, unknown>> {
  override name = "ExecNotFoundError";
}

/** The class of `ROUTE_NOT_FOUND`. */
export class RouteNotFoundError extends SandboxError<Record<string, unknown>> {
  override name = "RouteNotFoundError";
}

/** The class of `METHOD_NOT_ALLOWED`. */
export class MethodNotAllowedError extends SandboxError<Record<string, unknown>> {
  override name = "MethodNotAllowedError";
}

/** The class of `PROCESS_READY_TIMEOUT`. */
export class ProcessReadyTimeoutError extends SandboxError<{ processId: string; command: string; condition: string; timeout: number }> {
  override name = "ProcessReadyTimeoutError";
  /** `context.processId`. */
  get processId(): string {
    return this.errorResponse.context.processId;
  }
  /** `context.command`. */
  get command(): string {
    return this.errorResponse.context.command;
  }
  /** `context.condition`. */
  get condition(): string {
    return this.errorResponse.context.condition;
  }
  /** `context.timeout`. */
  get timeout(): number {
    return this.errorResponse.context.timeout;
  }
}

/** The class of `FILE_EXISTS`. */
export class FileExistsError extends SandboxError<{ path: string }> {
  override name = "FileExistsError";
  /** `context.path`. */
  get path(): string {
    return this.errorResponse.context.path;
  }
}

/** The class of `PORT_ALREADY_EXPOSED`. */
export class PortAlreadyExposedError extends SandboxError<Record<string, unknown>> {
  override name = "PortAlreadyExposedError";
}

/** The class of `PORT_IN_USE`. */
export class PortInUseError extends SandboxError<Record<string, unknown>> {
  override name = "PortInUseError";
}

/** The class of `RESOURCE_BUSY`. */
export class ResourceBusyError extends SandboxError<{ sessionId?: string; waiting?: number; retryAfter?: number }> {
  override name = "FileSystemError";
  /** `context.sessionId`. */
  get sessionId(): string | undefined {
    return this.errorResponse.context.sessionId;
  }
  /** `context.waiting`. */
  get waiting(): number | undefined {
    return this.errorResponse.context.waiting;
  }
  /** `context.retryAfter`. */
  get retryAfter(): number | undefined {
    return this.errorResponse.context.retryAfter;
  }
}

/** The class of `SESSION_ALREADY_EXISTS`. */
export class SessionAlreadyExistsError extends SandboxError<{ sessionId: string }> {
  override name = "SessionAlreadyExistsError";
  /** `context.sessionId`. */
  get sessionId(): string {
    return this.errorResponse.context.sessionId;
  }
}

/** The class of `SANDBOX_ALREADY_EXISTS`. */
export class SandboxAlreadyExistsError extends SandboxError<Record<string, unknown>> {
  override name = "SandboxAlreadyExistsError";
}

/** The class of `PROCESS_ALREADY_EXISTS`. */
export class ProcessAlreadyExistsError extends SandboxError<Record<string, unknown>> {
  override name = "ProcessAlreadyExistsError";
}

/** The class of `EXEC_ALREADY_EXISTS`. */
export class ExecAlreadyExistsError extends SandboxError<Record<string, unknown>> {
  override name = "ExecAlreadyExistsError";
}

/** The class of `OPERATION_INTERRUPTED`. */
export class OperationInterruptedError extends SandboxError<{ reason?: string }> {
  override name = "OperationInterruptedError";
  /** `context.reason`. */
  get reason(): string | undefined {
    return this.errorResponse.context.reason;
  }
}

/** The class of `SESSION_TERMINATED`. */
export class SessionTerminatedError extends SandboxError<{ sessionId: string; exitCode?: number | null }> {
  override name = "SessionTerminatedError";
  /** `context.sessionId`. */
  get sessionId(): string {
    return this.errorResponse.context.sessionId;
  }
  /** `context.exitCode`. */
  get exitCode(): number | null | undefined {
    return this.errorResponse.context.exitCode;
  }
}

/** The class of `EXEC_STDIN_CLOSED`. */
export class ExecStdinClosedError extends SandboxError<Record<string, unknown>> {
  override name = "ExecStdinClosedError";
}

/** The class of `SESSION_DESTROYED`. */
export class SessionDestroyedError extends SandboxError<{ sessionId: string; exitCode?: number | null }> {
  override name = "SessionDestroyedError";
  /** `context.sessionId`. */
  get sessionId(): string {
    return this.errorResponse.context.sessionId;
  }
  /** `context.exitCode`. */
  get exitCode(): number | null | undefined {
    return this.errorResponse.context.exitCode;
  }
}

/** The class of `FILE_TOO_LARGE`. */
export class FileTooLargeError extends SandboxError<{ path: string }> {
  override name = "FileTooLargeError";
  /** `context.path`. */
  get path(): string {
    return this.errorResponse.context.path;
  }
}

/** The class of `PAYLOAD_TOO_LARGE`. */
export class PayloadTooLargeError extends SandboxError<Record<string, unknown>> {
  override name = "PayloadTooLargeError";
}

/** The class of `UNSUPPORTED_MEDIA_TYPE`. */
export class UnsupportedMediaTypeError extends SandboxError<Record<string, unknown>> {
  override name = "UnsupportedMediaTypeError";
}

/** The class of `QUOTA_EXCEEDED`. */
export class QuotaExceededError extends SandboxError<{ limit: number | string; value: number; scope: string }> {
  override name = "QuotaExceededError";
  /** `context.limit`. */
  get limit(): number | string {
    return this.errorResponse.context.limit;
  }
  /** `context.value`. */
  get value(): number {
    return this.errorResponse.context.value;
  }
  /** `context.scope`. */
  get scope(): string {
    return this.errorResponse.context.scope;
  }
}

/** The class of `FILESYSTEM_ERROR`. */
export class FileSystemError extends SandboxError<{ path: string }> {
  override name = "FileSystemError";
  /** `context.path`. */
  get path(): string {
    return this.errorResponse.context.path;
  }
}

/** The class of `COMMAND_EXECUTION_ERROR`. */
export class CommandError extends SandboxError<{ command: string; exitCode?: number; stdout?: string; stderr?: string }> {
  override name = "CommandError";
  /** `context.command`. */
  get command(): string {
    return this.errorResponse.context.command;
  }
  /** `context.exitCode`. */
  get exitCode(): number | undefined {
    return this.errorResponse.context.exitCode;
  }
  /** `context.stdout`. */
  get stdout(): string | undefined {
    return this.errorResponse.context.stdout;
  }
  /** `context.stderr`. */
  get stderr(): string | undefined {
    return this.errorResponse.context.stderr;
  }
}

/** The class of `PROCESS_ERROR`. */
export class ProcessError extends SandboxError<Record<string, unknown>> {
  override name = "ProcessError";
}

/** The class of `PROCESS_EXITED_BEFORE_READY`. */
export class ProcessExitedBeforeReadyError extends SandboxError<{ processId: string; command: string; condition: string; exitCode: number }> {
  override name = "ProcessExitedBeforeReadyError";
  /** `context.processId`. */
  get processId(): string {
    return this.errorResponse.context.processId;
  }
  /** `context.command`. */
  get command(): string {
    return this.errorResponse.context.command;
  }
  /** `context.condition`. */
  get condition(): string {
    return this.errorResponse.context.condition;
  }
  /** `context.exitCode`. */
  get exitCode(): number {
    return this.errorResponse.context.exitCode;
  }
}

/** The class of `PORT_OPERATION_ERROR`. */
export class PortError extends SandboxError<Record<string, unknown>> {
  override name = "PortError";
}

/** The class of `GIT_CLONE_FAILED`. */
export class GitCloneError extends SandboxError<Record<string, unknown>> {
  override name = "GitCloneError";
}

/** The class of `GIT_CHECKOUT_FAILED`. */
export class GitCheckoutError extends SandboxError<Record<string, unknown>> {
  override name = "GitCheckoutError";
}

/** The class of `GIT_OPERATION_FAILED`. */
export class GitError extends SandboxError<Record<string, unknown>> {
  override name = "GitError";
}

/** The class of `CODE_EXECUTION_ERROR`. */
export class CodeExecutionError extends SandboxError<Record<string, unknown>> {
  override name = "CodeExecutionError";
}

/** The class of `WATCH_START_ERROR`. */
export class WatchStartError extends SandboxError<Record<string, unknown>> {
  override name = "SandboxError";
}

/** The class of `BACKUP_CREATE_FAILED`. */
export class BackupCreateError extends SandboxError<{ dir: string; backupId?: string }> {
  override name = "BackupCreateError";
  /** `context.dir`. */
  get dir(): string {
    return this.errorResponse.context.dir;
  }
  /** `context.backupId`. */
  get backupId(): string | undefined {
    return this.errorResponse.context.backupId;
  }
}

/** The class of `BACKUP_RESTORE_FAILED`. */
export class BackupRestoreError extends SandboxError<{ dir: string; backupId: string }> {
  override name = "BackupRestoreError";
  /** `context.dir`. */
  get dir(): string {
    return this.errorResponse.context.dir;
  }
  /** `context.backupId`. */
  get backupId(): string {
    return this.errorResponse.context.backupId;
  }
}

/** The class of `BUCKET_MOUNT_ERROR`. */
export class BucketMountError extends SandboxError<Record<string, unknown>> {
  override name = "BucketMountError";
}

/** The class of `INTERNAL_ERROR`. */
export class InternalError extends SandboxError<Record<string, unknown>> {
  override name = "SandboxError";
}

/** The class of `OOM_KILLED`. */
export class OomKilledError extends SandboxError<{ limit: number; peak: number }> {
  override name = "OomKilledError";
  /** `context.limit`. */
  get limit(): number {
    return this.errorResponse.context.limit;
  }
  /** `context.peak`. */
  get peak(): number {
    return this.errorResponse.context.peak;
  }
}

/** The class of `UNSUPPORTED_TRANSFER_CODING`. */
export class UnsupportedTransferCodingError extends SandboxError<Record<string, unknown>> {
  override name = "UnsupportedTransferCodingError";
}

/** The class of `PYTHON_NOT_AVAILABLE`. */
export class PythonNotAvailableError extends SandboxError<Record<string, unknown>> {
  override name = "SandboxError";
}

/** The class of `JAVASCRIPT_NOT_AVAILABLE`. */
export class JavascriptNotAvailableError extends SandboxError<Record<string, unknown>> {
  override name = "SandboxError";
}

/** The class of `SERVICE_NOT_RESPONDING`. */
export class ServiceNotRespondingError extends SandboxError<Record<string, unknown>> {
  override name = "ServiceNotRespondingError";
}

/** The class of `GIT_NETWORK_ERROR`. */
export class GitNetworkError extends SandboxError<Record<string, unknown>> {
  override name = "GitNetworkError";
}

/** The class of `INTERPRETER_NOT_READY`. */
export class InterpreterNotReadyError extends SandboxError<{ retryAfter?: number }> {
  override name = "InterpreterNotReadyError";
  /** `context.retryAfter`. */
  get retryAfter(): number | undefined {
    return this.errorResponse.context.retryAfter;
  }
}

/** The class of `CONTAINER_UNAVAILABLE`. */
export class ContainerUnavailableError extends SandboxError<{ reason?: string; retryAfterMs?: number }> {
  override name = "ContainerUnavailableError";
  /** `context.reason`. */
  get reason(): string | undefined {
    return this.errorResponse.context.reason;
  }
  /** `context.retryAfterMs`. */
  get retryAfterMs(): number | undefined {
    return this.errorResponse.context.retryAfterMs;
  }
}

/** The class of `IS_DIRECTORY`. */
export class IsDirectoryError extends FileSystemError {
  override name = "FileSystemError";
}

/** The class of `NOT_DIRECTORY`. */
export class NotDirectoryError extends FileSystemError {
  override name = "FileSystemError";
}

/** The class of `NAME_TOO_LONG`. */
export class NameTooLongError extends FileSystemError {
  override name = "FileSystemError";
}

/** The class of `INVALID_COMMAND`. */
export class InvalidCommandError extends CommandError {
  override name = "CommandError";
}

/** The class of `INVALID_PORT_NUMBER`. */
export class InvalidPortNumberError extends InvalidPortError {
  override name = "InvalidPortError";
}

/** The class of `INVALID_MOUNT_CONFIG`. */
export class InvalidMountConfigError extends BucketMountError {
  override name = "InvalidMountConfigError";
}

/** The class of `MISSING_CREDENTIALS`. */
export class MissingCredentialsError extends BucketMountError {
  override name = "MissingCredentialsError";
}

/** The class of `COMMAND_PERMISSION_DENIED`. */
export class CommandPermissionDeniedError extends CommandError {
  override name = "CommandError";
}

/** The class of `READ_ONLY`. */
export class ReadOnlyError extends FileSystemError {
  override name = "FileSystemError";
}

/** The class of `COMMAND_TIMEOUT`. */
export class CommandTimeoutError extends CommandError {
  override name = "CommandTimeoutError";
  declare readonly errorResponse: ErrorFacts<{ command: string; timeout: number; stdout: string; stderr: string; exitCode: number }>;
  /** `context.timeout`. */
  get timeout(): number {
    return this.errorResponse.context.timeout;
  }
}

/** The class of `NO_SPACE`. */
export class NoSpaceError extends FileSystemError {
  override name = "FileSystemError";
}

/** The class of each code. */
export const ERROR_CLASSES: Record<
  ErrorCode,
  // The context's type follows from the code, which is known at run time only.
  new (facts: ErrorFacts<any>, options?: ErrorOptions) => SandboxError<any>
> = {
  IS_DIRECTORY: IsDirectoryError,
  NOT_DIRECTORY: NotDirectoryError,
  NAME_TOO_LONG: NameTooLongError,
  INVALID_COMMAND: InvalidCommandError,
  INVALID_PORT_NUMBER: InvalidPortNumberError,
  INVALID_PORT: InvalidPortError,
  INVALID_GIT_URL: InvalidGitUrlError,
  VALIDATION_FAILED: ValidationFailedError,
  CUSTOM_DOMAIN_REQUIRED: CustomDomainRequiredError,
  INVALID_BACKUP_CONFIG: InvalidBackupConfigError,
  INVALID_MOUNT_CONFIG: InvalidMountConfigError,
  MISSING_CREDENTIALS: MissingCredentialsError,
  BACKUP_EXPIRED: BackupExpiredError,
  GIT_AUTH_FAILED: GitAuthenticationError,
  UNAUTHORIZED: UnauthorizedError,
  PERMISSION_DENIED: PermissionDeniedError,
  COMMAND_PERMISSION_DENIED: CommandPermissionDeniedError,
  READ_ONLY: ReadOnlyError,
  FORBIDDEN: ForbiddenError,
  FILE_NOT_FOUND: FileNotFoundError,
  COMMAND_NOT_FOUND: CommandNotFoundError,
  PROCESS_NOT_FOUND: ProcessNotFoundError,
  PORT_NOT_EXPOSED: PortNotExposedError,
  INVALID_TOKEN: InvalidTokenError,
  GIT_REPOSITORY_NOT_FOUND: GitRepositoryNotFoundError,
  GIT_BRANCH_NOT_FOUND: GitBranchNotFoundError,
  CONTEXT_NOT_FOUND: ContextNotFoundError,
  BACKUP_NOT_FOUND: BackupNotFoundError,
  SANDBOX_NOT_FOUND: SandboxNotFoundError,
  SESSION_NOT_FOUND: SessionNotFoundError,
  EXEC_NOT_FOUND: ExecNotFoundError,
  ROUTE_NOT_FOUND: RouteNotFoundError,
  METHOD_NOT_ALLOWED: MethodNotAllowedError,
  PROCESS_READY_TIMEOUT: ProcessReadyTimeoutError,
  COMMAND_TIMEOUT: CommandTimeoutError,
  FILE_EXISTS: FileExistsError,
  PORT_ALREADY_EXPOSED: PortAlreadyExposedError,
  PORT_IN_USE: PortInUseError,
  RESOURCE_BUSY: ResourceBusyError,
  SESSION_ALREADY_EXISTS: SessionAlreadyExistsError,
  SANDBOX_ALREADY_EXISTS: SandboxAlreadyExistsError,
  PROCESS_ALREADY_EXISTS: ProcessAlreadyExistsError,
  EXEC_ALREADY_EXISTS: ExecAlreadyExistsError,
  OPERATION_INTERRUPTED: OperationInterruptedError,
  SESSION_TERMINATED: SessionTerminatedError,
  EXEC_STDIN_CLOSED: ExecStdinClosedError,
  SESSION_DESTROYED: SessionDestroyedError,
  FILE_TOO_LARGE: FileTooLargeError,
  PAYLOAD_TOO_LARGE: PayloadTooLargeError,
  UNSUPPORTED_MEDIA_TYPE: UnsupportedMediaTypeError,
  QUOTA_EXCEEDED: QuotaExceededError,
  FILESYSTEM_ERROR: FileSystemError,
  COMMAND_EXECUTION_ERROR: CommandError,
  PROCESS_ERROR: ProcessError,
  PROCESS_EXITED_BEFORE_READY: ProcessExitedBeforeReadyError,
  PORT_OPERATION_ERROR: PortError,
  GIT_CLONE_FAILED: GitCloneError,
  GIT_CHECKOUT_FAILED: GitCheckoutError,
  GIT_OPERATION_FAILED: GitError,
  CODE_EXECUTION_ERROR: CodeExecutionError,
  WATCH_START_ERROR: WatchStartError,
  BACKUP_CREATE_FAILED: BackupCreateError,
  BACKUP_RESTORE_FAILED: BackupRestoreError,
  BUCKET_MOUNT_ERROR: BucketMountError,
  INTERNAL_ERROR: InternalError,
  OOM_KILLED: OomKilledError,
  UNSUPPORTED_TRANSFER_CODING: UnsupportedTransferCodingError,
  PYTHON_NOT_AVAILABLE: PythonNotAvailableError,
  JAVASCRIPT_NOT_AVAILABLE: JavascriptNotAvailableError,
  SERVICE_NOT_RESPONDING: ServiceNotRespondingError,
  GIT_NETWORK_ERROR: GitNetworkError,
  INTERPRETER_NOT_READY: InterpreterNotReadyError,
  CONTAINER_UNAVAILABLE: ContainerUnavailableError,
  NO_SPACE: NoSpaceError,
};
