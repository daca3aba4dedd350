import { ConnectionError } from "./errors.js";
import { jittered, sleep, type Transport } from "./transport.js";

/** Opens the stream behind what was read up to `cursor` (the id of the last event); undefined: from its start. */
export type Open = (cursor: string | undefined, connection?: AbortSignal) => Promise<Response>;

/** What an abort does before the stream fails with the signal's reason. */
export interface Abort {
  signal: AbortSignal;
  kill: () => Promise<void>;
}

/** What tells the streams of commands and of processes apart. */
export interface StreamKind {
  /** The method people called; errors name it. */
  operation: string;
  /** The type of the first event, which a resumed stream repeats. */
  first: string;
  /** The types of which the last event is one. */
  last: readonly string[];
}

const EXEC: StreamKind = { operation: "execStream", first: "start", last: ["complete", "error"] };

const NEWLINE = 10;

/** A connection that held this long was a good one, also if nothing came over it. */
const QUIET_CONNECTION_MS = 5000;

/**
 * A stream of events of a command, a process or a run of code that goes on where it broke off when the connection is lost
 * (contract S12). It hands on
 * whole messages only, so neither a message nor a character is ever split over two chunks, nor seen twice.
 *
 * Cancelling the stream lets the command run on; only `abort` kills it.
 */
export function resumableStream(
  transport: Transport,
  first: Response,
  open: Open,
  abort?: Abort,
  kind: StreamKind = EXEC,
): ReadableStream<Uint8Array> {
  let reader = readerOf(first);
  let rest: Uint8Array = new Uint8Array(0);
  let cursor: string | undefined;
  let started = false;
  let repeatsStart = false;
  let ended = false;
  let losses = 0;
  let furthest = -1;
  let opened = Date.now();
  let release = () => {};
  let aborting: Promise<void> | undefined;
  const connection = new AbortController();

  /** The next bytes, or why there are none. */
  async function read(): Promise<Uint8Array | { lost: unknown }> {
    try {
      const { done, value } = await reader.read();
      return done ? { lost: new Error("the stream ended before its last event") } : value;
    } catch (error) {
      return { lost: error };
    }
  }

  /** Keeps the start of an unfinished message and returns the whole ones before it. */
  function takeWhole(bytes: Uint8Array): Uint8Array {
    const joined = rest.length === 0 ? bytes : concat(rest, bytes);
    const end = endOfLastMessage(joined);
    rest = joined.subarray(end);
    return joined.subarray(0, end);
  }

  function note(messages: Uint8Array): Uint8Array {
    cursor = lastField(messages, "id:") ?? cursor;
    // Only what is new counts as progress: answers that never move the cursor would be asked for without end.
    const reached = position(cursor);
    if (reached > furthest) losses = 0;
    furthest = Math.max(furthest, reached);
    const type = /^\{"type":"(\w+)"/.exec(lastField(messages, "data:") ?? "")?.[1];
    ended ||= type !== undefined && kind.last.includes(type);
    const kept = repeatsStart ? withoutStart(messages, kind.first) : messages;
    repeatsStart &&= kept === undefined;
    started ||= type !== undefined;
    return kept ?? new Uint8Array(0);
  }

  async function resume(lost: unknown): Promise<void> {
    rest = new Uint8Array(0);
    let cause = lost;
    // A command that writes nothing for long makes no progress; a proxy may still end its quiet connections.
    if (Date.now() - opened >= QUIET_CONNECTION_MS) losses = 0;
    for (;;) {
      const pause = transport.patience[losses++];
      if (pause === undefined) {
        throw cause instanceof ConnectionError ? cause : new ConnectionError(kind.operation, transport.url, cause);
      }
      await sleep(jittered(pause), connection.signal);
      try {
        reader = readerOf(await open(cursor, connection.signal));
        opened = Date.now();
        repeatsStart = started;
        return;
      } catch (error) {
        if (!(error instanceof ConnectionError)) throw error;
        cause = error;
      }
    }
  }

  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        if (!abort) return;
        const { signal, kill } = abort;
        const aborted = async () => {
          const failure = await kill().then(
            () => signal.reason,
            (error: unknown) => error,
          );
          controller.error(failure);
          connection.abort(failure);
          await reader.cancel(failure).catch(() => {});
        };
        const listen = () => {
          aborting = aborted();
        };
        release = () => signal.removeEventListener("abort", listen);
        signal.addEventListener("abort", listen, { once: true });
      },
      async pull(controller) {
        for (;;) {
          const bytes = await read();
          // The end that the abort itself brings about is not handed on: the stream fails with the signal's reason.
          if (aborting || connection.signal.aborted) return aborting;
          if (bytes instanceof Uint8Array) {
            const messages = note(takeWhole(bytes));
            if (messages.length === 0) continue;
            controller.enqueue(messages);
            return;
          }
          if (ended) {
            release();
            controller.close();
            return;
          }
          try {
            await resume(bytes.lost);
          } catch (error) {
            if (aborting || connection.signal.aborted) return aborting;
            release();
            throw error;
          }
        }
      },
      async cancel(reason) {
        release();
        connection.abort(reason);
        await reader.cancel(reason).catch(() => {});
      },
    },
    // Nothing is read ahead of the consumer: a slow one slows the server, not this program's memory.
    { highWaterMark: 0 },
  );
}

function readerOf(response: Response): ReadableStreamDefaultReader<Uint8Array> {
  const body = response.body ?? new ReadableStream({ start: (controller) => controller.close() });
  return body.getReader();
}

/** How far an event's id is: the sum of its numbers, each of which only grows. */
function position(id: string | undefined): number {
  return (id?.match(/\d+/g) ?? []).reduce((sum, number) => sum + Number(number), id === undefined ? -1 : 0);
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  const joined = new Uint8Array(a.length + b.length);
  joined.set(a);
  joined.set(b, a.length);
  return joined;
}

/** Where the last whole message ends: behind its blank line; 0 if there is none. */
function endOfLastMessage(bytes: Uint8Array): number {
  for (let at = bytes.lastIndexOf(NEWLINE); at > 0; at = bytes.lastIndexOf(NEWLINE, at - 1)) {
    if (bytes[at - 1] === NEWLINE) return at + 1;
  }
  return 0;
}

/** The value of the last line that begins with `name`. */
function lastField(messages: Uint8Array, name: string): string | undefined {
  let end = messages.length;
  while (end > 0) {
    const newline = end === 1 ? -1 : messages.lastIndexOf(NEWLINE, end - 2);
    const line = messages.subarray(newline + 1, end);
    if (beginsWith(line, name)) {
      // Nothing that is looked for is long; a line of output may be.
      return new TextDecoder().decode(line.subarray(name.length, name.length + 64)).trim();
    }
    end = newline + 1;
  }
  return undefined;
}

function beginsWith(line: Uint8Array, text: string): boolean {
  for (let at = 0; at < text.length; at++) {
    if (line[at] !== text.charCodeAt(at)) return false;
  }
  return true;
}

/**
 * A resumed stream begins with the same event again. Drops that message; undefined if nothing but comments has
 * come yet.
 */
function withoutStart(messages: Uint8Array, first: string): Uint8Array | undefined {
  let start = 0;
  for (let at = messages.indexOf(NEWLINE); at >= 0; at = messages.indexOf(NEWLINE, at + 1)) {
    if (messages[at + 1] !== NEWLINE) continue;
    const message = messages.subarray(start, at + 2);
    const data = lastField(message, "data:");
    if (data?.startsWith(`{"type":"${first}"`)) return messages.subarray(at + 2);
    if (data !== undefined) return messages.subarray(start);
    start = at + 2;
  }
  return undefined;
}
