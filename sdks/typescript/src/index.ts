export type * from "./code-types.js";
export { type Connection, type ConnectOptions, connect } from "./connect.js";
export {
  BucketUnmountError,
  ConnectionError,
  NotSupportedError,
  RPCTransportError,
  S3FSMountError,
  SandboxSecurityError,
} from "./errors.js";
export { collectFile, streamFile } from "./file-stream.js";
export * from "./generated/errors.js";
export type { GitCheckoutOptions, GitCheckoutResult } from "./git.js";
export { isExecResult, isProcess, isProcessStatus, type ProcessStatus } from "./guards.js";
export { CodeInterpreter, type CodeRunner } from "./interpreter.js";
export {
  BackupClient,
  CommandClient,
  ContainerProxy,
  FileClient,
  GitClient,
  PortClient,
  ProcessClient,
  proxyTerminal,
  SandboxClient,
  UtilityClient,
} from "./not-here.js";
export { ExecutionSession } from "./operations.js";
export type * from "./original-types.js";
export { isDurableObjectCodeUpdateReset, isPlatformTransientError } from "./platform-errors.js";
export type { ExposedPort, ExposePortOptions, ExposePortResult } from "./ports.js";
export { proxyToSandbox } from "./preview.js";
export { Process } from "./processes.js";
export { getSandbox, Sandbox, type SandboxOptions, type SandboxSetup } from "./sandbox.js";
export { type ErrorFacts, SandboxError } from "./sandbox-error.js";
export { asyncIterableToSSEStream, parseSSEStream, responseToAsyncIterable } from "./sse.js";
export type { Fetch } from "./transport.js";
export type * from "./types.js";
export type {
  PortSocket,
  PortSocketEvents,
  WebSocketClass,
  WebSocketLike,
  WebSocketResponse,
} from "./web-socket.js";
