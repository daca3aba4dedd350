import { cancellable } from "./cancel.js";
import { jsonOf } from "./check.js";
import { cancel, RETENTION_MS } from "./exec.js";
import { newExecId } from "./ids.js";
import type { Target } from "./target.js";
import { retrying } from "./transport.js";
import type * as wire from "./wire.js";

/** Options of `gitCheckout`. */
export interface GitCheckoutOptions {
  /** The branch or tag to check out. Default: the remote's own. */
  branch?: string | undefined;
  /**
   * Where the working tree goes: an empty directory or a new one. Default: the repository's name, below `/workspace` or
   * the session's working directory.
   */
  targetDir?: string | undefined;
  /** Fetch only so many of the newest commits. Default: all. */
  depth?: number | undefined;
  /** Leave objects out until they are needed, as git's `--filter`: `blob:none`, `blob:limit=1m`, `tree:0`. */
  filter?: string | undefined;
  /** Milliseconds after which git is killed with all its processes and what it had made is removed. Default 600000. */
  cloneTimeoutMs?: number | undefined;
  /** Who to be for the repository's host, by http and https; a token needs no user name. It is written nowhere. */
  auth?: { username?: string | undefined; password: string } | undefined;
  /** Aborting kills git and removes what it had made; the call then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** A repository that was cloned. */
export interface GitCheckoutResult {
  success: boolean;
  /** The URL without a user name and password. */
  repoUrl: string;
  /** The branch or tag that is checked out. */
  branch: string;
  /** The working tree, from the root. */
  targetDir: string;
  /** ISO 8601. */
  timestamp: string;
}

/** Clones a repository with the sandbox's own git. */
export async function gitCheckout(
  target: Target,
  sessionId: string | undefined,
  repoUrl: string,
  options: GitCheckoutOptions = {},
): Promise<GitCheckoutResult> {
  const { branch, targetDir, depth, filter, cloneTimeoutMs, auth, signal } = options;
  const execId = newExecId();
  const request = { repoUrl, branch, targetDir, depth, filter, cloneTimeoutMs, auth, sessionId, execId };
  const created = target.ready();
  if (created) await created;
  const operation = "gitCheckout";
  const body = jsonOf(request);
  const sent = Date.now();
  const work = (connection?: AbortSignal) =>
    retrying(
      target.transport,
      async () => {
        // Until then the id cannot have been forgotten: sending it again attaches to the call instead of cloning twice.
        if (Date.now() - sent < RETENTION_MS) {
          const path = `${target.path}/git/checkout`;
          const call = { operation, method: "POST", path, body, signal: connection };
          return target.transport.json<wire.GitCheckoutResult>(call);
        }
        // As a command, a checkout writes its result to stdout.
        const path = `${target.path}/execs/${execId}/result`;
        const call = { operation, method: "GET", path, signal: connection };
        const { stdout } = await target.transport.json<wire.ExecResult>(call);
        return JSON.parse(stdout) as wire.GitCheckoutResult;
      },
      connection,
    );
  return signal ? cancellable(signal, work, (pending) => cancel(target, execId, pending)) : work();
}
