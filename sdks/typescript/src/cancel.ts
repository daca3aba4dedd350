import { ConnectionError, ExecNotFoundError } from "./errors.js";
import type { Target } from "./target.js";
import { sleep } from "./transport.js";

/**
 * Does `work`; on abort first has the server end what runs there, then rejects with the signal's reason. A dropped
 * connection alone would end nothing. `kill` is told whether the work is still pending.
 */
export function cancellable<T>(
  signal: AbortSignal,
  work: (connection: AbortSignal) => Promise<T>,
  kill: (pending: () => boolean) => Promise<void>,
): Promise<T> {
  if (signal.aborted) return Promise.reject(signal.reason);
  return new Promise((resolve, reject) => {
    const connection = new AbortController();
    let pending = true;
    const abort = async () => {
      const failure = await kill(() => pending).then(
        () => signal.reason,
        (error: unknown) => error,
      );
      reject(failure);
      connection.abort(signal.reason);
    };
    signal.addEventListener("abort", abort, { once: true });
    const settled = () => {
      pending = false;
      signal.removeEventListener("abort", abort);
    };
    work(connection.signal).then(
      (value) => {
        settled();
        if (!signal.aborted) resolve(value);
      },
      (error) => {
        settled();
        if (!signal.aborted) reject(error);
      },
    );
  });
}

/**
 * Cancels what has this path; returns when it has ended. An abort can overtake the request that it belongs to: while that
 * is `pending`, what is unknown has not arrived yet.
 */
export async function cancelUntilDone(target: Target, path: string, pending: () => boolean): Promise<void> {
  for (const pause of [...target.transport.patience, undefined]) {
    try {
      await target.transport.json({ operation: "cancel", method: "POST", path });
      return;
    } catch (error) {
      const unknown = error instanceof ExecNotFoundError;
      // Not there and not on its way: nothing runs. The last try gives up on a request that never arrives.
      if (unknown && (!pending() || pause === undefined)) return;
      if (pause === undefined || !(unknown || error instanceof ConnectionError)) throw error;
      await sleep(pause);
    }
  }
}
