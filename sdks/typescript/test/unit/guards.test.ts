import { expect, test } from "vitest";
import { isExecResult, isProcess, isProcessStatus } from "../../src/index.js";

test("guards tell shapes apart and take anything", () => {
  const result = { success: true, exitCode: 0, stdout: "", stderr: "" };
  expect(isExecResult(result)).toBe(true);
  expect(isExecResult({ ...result, exitCode: "0" })).toBe(false);
  expect(isProcess({ id: "1", command: "x", status: "running" })).toBe(true);
  expect(isProcess({ id: "1", command: "x", status: "asleep" })).toBe(false);
  for (const status of ["starting", "running", "completed", "failed", "killed", "error"]) {
    expect(isProcessStatus(status)).toBe(true);
  }
  for (const other of [null, undefined, 1, "x", []]) {
    expect([isExecResult(other), isProcess(other), isProcessStatus(other)]).toEqual([false, false, false]);
  }
});
