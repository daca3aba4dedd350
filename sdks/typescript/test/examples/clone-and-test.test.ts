import { expect } from "vitest";
import { cloneAndTest } from "../../../../examples/clone-and-test/clone-and-test.js";
import { PASSWORD, serveGit } from "../support/git.js";
import { test } from "../support/sandbox.js";

const PRIVATE = "http://me@127.0.0.1:8080/private/r.git";

test("G01 S14 clone-and-test: a private branch is cloned, tested and told of", async ({ sandbox }) => {
  await serveGit(sandbox);
  const command = 'echo "$CI in $PWD: $(cat file)"; test "$(cat file)" = 3';
  const pieces: string[] = [];
  const onOutput = (_: string, data: string) => pieces.push(data);
  const passed = await cloneAndTest(sandbox, PRIVATE, { token: PASSWORD, command, onOutput });
  expect(passed).toMatchObject({ passed: true, branch: "main", report: "true in /workspace/r: 3" });
  expect(passed.commit).toMatch(/^[0-9a-f]{40}$/);
  expect(pieces.join("")).toBe("true in /workspace/r: 3\n");
  await sandbox.exec("rm -r /workspace/r");
  const failed = await cloneAndTest(sandbox, PRIVATE, { token: PASSWORD, command, branch: "dev" });
  expect(failed).toMatchObject({ passed: false, branch: "dev", report: "true in /workspace/r: 2" });
  await sandbox.exec("rm -r /workspace/r");

  const missing = await cloneAndTest(sandbox, PRIVATE, { token: PASSWORD, branch: "none" });
  expect(missing.problem).toContain('no branch or tag "none"');
  const refused = await cloneAndTest(sandbox, PRIVATE, { token: "wrong" });
  expect(refused).toMatchObject({ passed: false, suggestion: expect.stringContaining("token") });
  expect(JSON.stringify([missing, refused])).not.toMatch(/wrong|s3cret/);
});
