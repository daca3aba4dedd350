import type { Process } from "./processes.js";
import type { ExecResult } from "./types.js";

const PROCESS_STATUSES = ["starting", "running", "completed", "failed", "killed", "error"] as const;

/** Where a background process stands. */
export type ProcessStatus = (typeof PROCESS_STATUSES)[number];

/** Whether `value` is one of the words for where a process stands. */
export function isProcessStatus(value: unknown): value is ProcessStatus {
  return PROCESS_STATUSES.includes(value as ProcessStatus);
}

/** Whether `value` has the shape of a process: an id, a command and a status. */
export function isProcess(value: unknown): value is Process {
  const { id, command, status } = fieldsOf(value);
  return typeof id === "string" && typeof command === "string" && isProcessStatus(status);
}

/** Whether `value` has the shape of a command's result. */
export function isExecResult(value: unknown): value is ExecResult {
  const { success, exitCode, stdout, stderr } = fieldsOf(value);
  const outputs = typeof stdout === "string" && typeof stderr === "string";
  return typeof success === "boolean" && typeof exitCode === "number" && outputs;
}

function fieldsOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}
