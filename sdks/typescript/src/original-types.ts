// Types of Cloudflare's SDK by its names: those whose values this package takes or gives stand beside what does so; here
// are the others, so that every import of a type is found. Where docs/FROM_CLOUDFLARE.md says that a feature is not here
// yet, its types are what the methods will take.
import type { ExecutionError, OutputMessage, Result } from "./code-types.js";
import type { Connection } from "./connect.js";
import type { ProcessStatus } from "./guards.js";
import type { CodeInterpreter } from "./interpreter.js";
import type { Sandbox } from "./sandbox.js";
import type { Env } from "./types.js";

/** The methods of a sandbox. */
export type ISandbox = Omit<Sandbox, "target">;

/** What `proxyToSandbox` takes the connection from. The parameter is there for code that names one. */
export interface SandboxEnv<_T = Sandbox> {
  Sandbox: Connection;
}

/** Accepted where the original takes it; there is one transport here. */
export type SandboxTransport = "http" | "websocket" | "rpc";

/** What runs code, apart from the other methods. */
export type InterpreterClient = CodeInterpreter;

/** What is called while code runs. */
export interface ExecutionCallbacks {
  onStdout?: (output: OutputMessage) => void | Promise<void>;
  onStderr?: (output: OutputMessage) => void | Promise<void>;
  onResult?: (result: Result) => void | Promise<void>;
  onError?: (error: ExecutionError) => void | Promise<void>;
}

/** A terminal's size and shell. */
export interface PtyOptions {
  cols?: number;
  rows?: number;
  shell?: string;
}

// Errors

/** How a failure was written before it had facts. */
export interface ErrorResponse {
  error: string;
  details?: string;
  code?: string;
}

/** Why a sandbox could not be had. */
export type ContainerUnavailableReason =
  | "container_starting"
  | "container_unhealthy"
  | "container_replaced"
  | "rpc_upgrade_failed"
  | "no_container_instance_available"
  | "max_container_instances_exceeded"
  | "container_unreachable";

/** Facts of a `ContainerUnavailableError`; here the sandbox's id alone. */
export interface ContainerUnavailableContext {
  reason: ContainerUnavailableReason;
  retryable: true;
  retryAfterMs?: number;
  originalMessage?: string;
}

/** How the way to the server failed. */
export type RPCTransportErrorKind =
  | "peer_closed"
  | "connection_failed"
  | "upgrade_failed"
  | "invalid_frame"
  | "protocol_error"
  | "session_disposed"
  | "unknown";

/** Facts of an `RPCTransportError`. */
export interface RPCTransportContext {
  kind: RPCTransportErrorKind;
  originalMessage: string;
  errorName: string;
  closeCode?: number;
  closeReason?: string;
}

/** Why something was broken off. */
export type OperationInterruptedReason =
  | "runtime_replaced"
  | "transport_disposed"
  | "sandbox_lifetime_changed"
  | "recovery_exhausted";

/** Facts of an `OperationInterruptedError`; here the sandbox's id alone. */
export interface OperationInterruptedContext {
  reason: OperationInterruptedReason;
  operation: string;
  phase: string;
  admitted: boolean | "unknown";
  retryable: boolean;
  recoveryAttempts?: number;
  maxRecoveryAttempts?: number;
  containerExitCode?: number;
  stopReason?: string;
}

// What the original's own clients ask its container, and hear of it

/** Which session a request belongs to. */
export interface SessionRequest {
  sessionId?: string;
}

/** What every answer has. */
export interface BaseApiResponse {
  success: boolean;
  timestamp: string;
}

export interface ExecuteRequest extends SessionRequest {
  command: string;
  background?: boolean;
  timeoutMs?: number;
  env?: Env;
  cwd?: string;
  origin?: "user" | "internal";
}

export interface CommandExecuteResponse extends BaseApiResponse {
  stdout: string;
  stderr: string;
  exitCode: number;
  command: string;
}

export interface StartProcessRequest extends SessionRequest {
  command: string;
  processId?: string;
  timeoutMs?: number;
  env?: Env;
  cwd?: string;
  encoding?: string;
  autoCleanup?: boolean;
  origin?: "user" | "internal";
}

export interface CreateSessionRequest {
  id: string;
  env?: Env;
  cwd?: string;
  commandTimeoutMs?: number;
}

export interface CreateSessionResponse extends BaseApiResponse {
  id: string;
  message: string;
  containerPlacementId?: string | null;
}

export interface DeleteSessionRequest {
  sessionId: string;
}

export interface DeleteSessionResponse extends BaseApiResponse {
  sessionId: string;
}

export interface PingResponse extends BaseApiResponse {
  message: string;
  uptime?: number;
}

export interface CommandsResponse extends BaseApiResponse {
  availableCommands: string[];
  count: number;
}

export interface MkdirRequest extends SessionRequest {
  path: string;
  recursive?: boolean;
}

export interface WriteFileRequest extends SessionRequest {
  path: string;
  content: string;
  encoding?: string;
}

export interface ReadFileRequest extends SessionRequest {
  path: string;
  encoding?: string;
}

export interface FileOperationRequest extends SessionRequest {
  path: string;
  newPath?: string;
}

export interface GitCheckoutRequest extends SessionRequest {
  repoUrl: string;
  branch?: string;
  targetDir?: string;
  depth?: number;
  timeoutMs?: number;
}

/** A process as an answer describes it. */
interface ProcessFacts {
  id: string;
  pid?: number;
  command: string;
  status: ProcessStatus;
  startTime: string;
  endTime?: string;
  exitCode?: number;
}

export interface ProcessStartResult extends BaseApiResponse {
  processId: string;
  pid?: number;
  command: string;
}

export interface ProcessListResult extends BaseApiResponse {
  processes: ProcessFacts[];
}

export interface ProcessInfoResult extends BaseApiResponse {
  process: ProcessFacts;
}

export interface ProcessKillResult extends BaseApiResponse {
  processId: string;
  signal?: string;
}

export interface ProcessLogsResult extends BaseApiResponse {
  processId: string;
  stdout: string;
  stderr: string;
}

export interface ProcessCleanupResult extends BaseApiResponse {
  message?: string;
  killedCount?: number;
  cleanedCount: number;
}

export interface RequestConfig extends RequestInit {
  endpoint: string;
  // biome-ignore lint/suspicious/noExplicitAny: as it stands there.
  data?: Record<string, any>;
}

export type ResponseHandler<T> = (response: Response) => Promise<T>;

/** What a request of the original's clients goes to; `Sandbox` has both. */
export interface ContainerStub {
  containerFetch(url: string, options: RequestInit, port?: number): Promise<Response>;
  fetch(request: Request): Promise<Response>;
}

/** The options of clients that are not here. */
export interface SandboxClientOptions {
  baseUrl?: string;
  port?: number;
  stub?: ContainerStub;
  transportMode?: "http" | "websocket";
  wsUrl?: string;
  retryTimeoutMs?: number;
  defaultHeaders?: Record<string, string>;
}

// Not here yet: watches

export interface WatchOptions extends SessionRequest {
  recursive?: boolean;
  include?: string[];
  exclude?: string[];
}

export interface CheckChangesOptions extends WatchOptions {
  since?: string;
}

export type CheckChangesResult = { success: true; version: string; timestamp: string } & (
  | { status: "unchanged" | "changed" }
  | { status: "resync"; reason: "expired" | "restarted" }
);

export type FileWatchSSEEvent =
  | { type: "watching"; path: string; watchId: string }
  | {
      type: "event";
      eventType: "create" | "modify" | "delete" | "move_from" | "move_to" | "attrib";
      path: string;
      isDirectory: boolean;
      timestamp: string;
    }
  | { type: "error"; error: string }
  | { type: "stopped"; reason: string };

// Not here yet: backups

export interface BackupOptions {
  dir: string;
  name?: string;
  ttl?: number;
  gitignore?: boolean;
  excludes?: string[];
  localBucket?: boolean;
  compression?: { format?: "gzip" | "lz4" | "zstd"; threads?: number };
  multipart?: boolean;
}

export interface DirectoryBackup {
  readonly id: string;
  readonly dir: string;
  readonly localBucket?: boolean;
}

export interface RestoreBackupResult {
  success: boolean;
  dir: string;
  id: string;
}

// Not here yet: buckets

export type BucketProvider = "r2" | "s3" | "gcs";

export interface BucketCredentials {
  accessKeyId: string;
  secretAccessKey: string;
}

export interface RemoteMountBucketOptions {
  endpoint: string;
  provider?: BucketProvider;
  credentials?: BucketCredentials;
  readOnly?: boolean;
  s3fsOptions?: string[];
  prefix?: string;
  credentialProxy?: boolean;
}

export interface LocalMountBucketOptions {
  localBucket: true;
  prefix?: string;
  readOnly?: boolean;
}

export type MountBucketOptions =
  | RemoteMountBucketOptions
  | LocalMountBucketOptions
  | { endpoint?: never; prefix?: string; readOnly?: boolean; s3fsOptions?: string[] };

// Not here: tunnels

export interface TunnelOptions {
  name?: string;
}

export interface QuickTunnelInfo {
  id: string;
  port: number;
  url: string;
  hostname: string;
  createdAt: string;
  name?: never;
}

export interface NamedTunnelInfo extends Omit<QuickTunnelInfo, "name"> {
  name: string;
}

export type TunnelInfo = QuickTunnelInfo | NamedTunnelInfo;
