/** How bytes of output are written into JSON. */
export type OutputEncoding = "utf8" | "base64";

export interface Truncated {
  stdout?: number;
  stderr?: number;
}

export interface Oom {
  limit: number;
  peak: number;
}

export interface ExecRequest {
  command: string;
  sessionId?: string;
  execId?: string;
  fresh?: boolean;
  timeout?: number;
  queueTimeout?: number;
  env?: Record<string, string | null>;
  cwd?: string;
  stdin?: string;
  encoding?: OutputEncoding;
  maxOutputBytes?: number;
}

export interface ExecOutcome {
  exitCode: number;
  duration: number;
  shellRestarted?: boolean;
  interrupted?: boolean;
  oom?: Oom;
  truncated?: Truncated;
}

export interface ExecResult extends ExecOutcome {
  success: boolean;
  command: string;
  execId: string;
  sessionId?: string;
  timestamp: string;
  encoding: OutputEncoding;
  invalidUtf8?: boolean;
  stdout: string;
  stderr: string;
}

export interface SessionInfo {
  id: string;
  name?: string;
  cwd: string;
  createdAt: string;
  busy: boolean;
  waiting: number;
}

export interface SessionDeleted {
  success: boolean;
  sessionId: string;
  timestamp: string;
}

export interface SandboxInfo {
  id: string;
  status: "starting" | "running" | "stopped" | "destroying";
  createdAt: string;
  lastChange: string;
}

export interface ReadFileResult {
  success: boolean;
  path: string;
  encoding: "utf-8" | "base64";
  isBinary: boolean;
  mimeType: string;
  size: number;
  timestamp: string;
  content: string;
}

export interface FileChanged {
  success: boolean;
  path: string;
  newPath?: string;
  timestamp: string;
}

export interface FileInfo {
  name: string;
  absolutePath: string;
  relativePath: string;
  type: "file" | "directory" | "symlink" | "other";
  size: number;
  modifiedAt: string;
  mode: string;
  permissions: { readable: boolean; writable: boolean; executable: boolean };
}

export interface ListFilesResult {
  success: boolean;
  path: string;
  files: FileInfo[];
  count: number;
  timestamp: string;
}

export interface ExistsResult {
  success: boolean;
  path: string;
  exists: boolean;
  timestamp: string;
}
