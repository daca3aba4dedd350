// Tries a branch of a repository in a sandbox of its own: clone, test, report. Code that nobody has read yet runs where
// it can harm nothing.
import { GitAuthenticationError, GitBranchNotFoundError, GitRepositoryNotFoundError } from "sandcrab";

/**
 * Clones `repoUrl` and runs `command` in it. `token` is for a private repository; it stays out of the sandbox's files and
 * of everything that the tests can read afterwards.
 *
 * @param {import("sandcrab").Sandbox} sandbox
 * @param {string} repoUrl
 * @param {{ branch?: string, token?: string, command?: string,
 *   onOutput?: (stream: "stdout" | "stderr", data: string) => void }} [options]
 *
 * Returns `{ passed, branch, commit, report }`; `problem` instead where there is nothing to test.
 */
export async function cloneAndTest(sandbox, repoUrl, { branch, token, command = "npm test", onOutput } = {}) {
  const session = await sandbox.createSession({ env: { CI: "true" } });
  let clone;
  try {
    // One commit is enough to test it; five minutes are too long to wait for it.
    clone = await session.gitCheckout(repoUrl, {
      branch,
      depth: 1,
      cloneTimeoutMs: 300_000,
      auth: token === undefined ? undefined : { password: token },
    });
  } catch (error) {
    // What its author can mend is a result; anything else is not.
    const theirs = [GitAuthenticationError, GitBranchNotFoundError, GitRepositoryNotFoundError];
    if (!theirs.some((kind) => error instanceof kind)) throw error;
    return { passed: false, problem: error.message, suggestion: error.suggestion };
  }
  const cwd = clone.targetDir;
  const commit = (await session.exec("git rev-parse HEAD", { cwd })).stdout;
  const { exitCode, stdout, stderr } = await session.exec(command, { cwd, timeout: 600_000, onOutput });
  return { passed: exitCode === 0, branch: clone.branch, commit, report: stdout + stderr };
}
