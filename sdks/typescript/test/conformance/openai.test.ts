import type * as original from "@cloudflare/sandbox/openai";
import { Editor, Shell } from "sandcrab/openai";
import { describe, expect } from "vitest";
import { rejection, test } from "../support/sandbox.js";

describe("an agent of @openai/agents", () => {
  test("has a sandbox as its shell", async ({ sandbox }) => {
    const shell = new Shell(sandbox);
    const { output } = await shell.run({ commands: ["echo hi; pwd", "exit 3", "echo x >&2"] });
    expect(output).toMatchObject([
      { stdout: "hi\n/workspace", outcome: { type: "exit", exitCode: 0 } },
      { outcome: { type: "exit", exitCode: 3 } },
      { stderr: "x" },
    ]);
    const late = await shell.run({ commands: ["echo on; sleep 30", "echo never"], timeoutMs: 200 });
    expect(late.output).toMatchObject([{ stdout: "on\n", outcome: { type: "timeout" } }]);
    const results: original.CommandResult[] = shell.results;
    expect(results.map(({ command, exitCode }) => [command, exitCode])).toEqual([
      ["echo hi; pwd", 0],
      ["exit 3", 3],
      ["echo x >&2", 0],
      ["echo on; sleep 30", null],
    ]);
  });

  test("has a sandbox as its editor, and stays below its root", async ({ sandbox }) => {
    const editor = new Editor(sandbox, "/workspace/project");
    const made = await editor.createFile({ type: "create_file", path: "src/a.txt", diff: "+one\n+two" });
    expect(made).toEqual({ status: "completed", output: "Created src/a.txt" });
    expect((await sandbox.readFile("/workspace/project/src/a.txt")).content).toBe("one\ntwo");
    const path = "/workspace/project/./src/a.txt";
    await editor.updateFile({ type: "update_file", path, diff: " one\n-two\n+three" });
    expect((await sandbox.readFile("/workspace/project/src/a.txt")).content).toBe("one\nthree");
    await editor.deleteFile({ type: "delete_file", path: "src/../src/a.txt" });
    expect((await sandbox.exists("/workspace/project/src/a.txt")).exists).toBe(false);

    const missing = await rejection(editor.updateFile({ type: "update_file", path: "none", diff: "+a" }));
    expect(missing).toMatchObject({ message: "Cannot update missing file: none" });
    const outside = await rejection(editor.deleteFile({ type: "delete_file", path: "../other" }));
    expect(outside).toMatchObject({ message: "Operation outside workspace: ../other" });
    const results: original.FileOperationResult[] = editor.results;
    expect(results.map(({ operation, status }) => `${operation} ${status}`)).toEqual([
      "create completed",
      "update completed",
      "delete completed",
      "update failed",
      "delete failed",
    ]);
  });
});
