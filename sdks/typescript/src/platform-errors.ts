import { ConnectionError } from "./errors.js";

/** What Workers say of a Durable Object whose code was replaced while it ran. */
const REPLACED = /reset because its code was updated|this script has been upgraded/i;
/** What they say when what they call is gone for a moment. */
const GONE = /network connection lost|durable object storage caused object to be reset/i;
/** An error may be the cause of another, but not without end. */
const DEEPEST = 8;

/** An error and its causes. */
function* chain(error: unknown): Generator<unknown> {
  let current = error;
  for (let depth = 0; depth < DEEPEST && current !== undefined && current !== null; depth++) {
    yield current;
    current = (current as { cause?: unknown }).cause;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : typeof error === "string" ? error : "";
}

/**
 * Whether a Durable Object of the Worker around was replaced by a deploy. Trying again in the same request is futile. No
 * sandbox here is a Durable Object; for programs that have others.
 */
export function isDurableObjectCodeUpdateReset(error: unknown): boolean {
  return [...chain(error)].some((one) => REPLACED.test(messageOf(one)));
}

/**
 * Whether what failed is the way to the sandbox, and not the call: the server was not reached (`ConnectionError`), or the
 * platform around says that trying again makes sense.
 */
export function isPlatformTransientError(error: unknown): boolean {
  return [...chain(error)].some((one) => {
    const { retryable, overloaded } = one as { retryable?: unknown; overloaded?: unknown };
    const message = messageOf(one);
    const says = REPLACED.test(message) || GONE.test(message);
    return one instanceof ConnectionError || says || (retryable === true && overloaded !== true);
  });
}
