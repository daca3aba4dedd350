/** One message's `data` lines end here: a blank line. */
const MESSAGE_END = /\r?\n\r?\n/;

/**
 * Reads a stream of server-sent events; each event's data is parsed as JSON. Leaving the loop early closes the stream.
 *
 * @param stream what `execStream`, `readFileStream` and the like return.
 * @param signal ends the iteration with the signal's reason.
 * @throws SyntaxError if an event is no JSON.
 */
export async function* parseSSEStream<T>(stream: ReadableStream<Uint8Array>, signal?: AbortSignal): AsyncIterable<T> {
  const reader = stream.getReader();
  // Cancelling makes a pending read return at once.
  const abort = () => void reader.cancel(signal?.reason).catch(() => {});
  signal?.addEventListener("abort", abort, { once: true });
  const decoder = new TextDecoder();
  // A message may come in very many pieces, which are looked through once each.
  let pieces: string[] = [];
  /** The end of what was looked through: a blank line may be cut by the pieces. */
  let tail = "";
  try {
    for (;;) {
      signal?.throwIfAborted();
      const { done, value } = await reader.read();
      signal?.throwIfAborted();
      const text = done ? `${decoder.decode()}\n\n` : decoder.decode(value, { stream: true });
      pieces.push(text);
      const seen = tail + text;
      if (!MESSAGE_END.test(seen)) {
        tail = seen.slice(-3);
        continue;
      }
      const messages = pieces.join("").split(MESSAGE_END);
      const rest = messages.pop() ?? "";
      pieces = [rest];
      tail = rest.slice(-3);
      for (const message of messages) {
        const data = dataOf(message);
        if (data !== undefined) yield JSON.parse(data) as T;
      }
      if (done) return;
    }
  } finally {
    signal?.removeEventListener("abort", abort);
    await reader.cancel().catch(() => {});
    reader.releaseLock();
  }
}

/** The data of one message; undefined for comments and for messages without data. */
function dataOf(message: string): string | undefined {
  let data: string | undefined;
  for (const line of message.split(/\r?\n/)) {
    if (!line.startsWith("data:")) continue;
    const text = line.slice(line.startsWith("data: ") ? 6 : 5);
    data = data === undefined ? text : `${data}\n${text}`;
  }
  return data === "" || data === "[DONE]" ? undefined : data;
}

/**
 * The events of a response whose body is a stream of server-sent events.
 *
 * @throws Error if the response is not 2xx or has no body.
 */
export async function* responseToAsyncIterable<T>(response: Response, signal?: AbortSignal): AsyncIterable<T> {
  if (!response.ok) throw new Error(`the response is no stream: ${response.status} ${response.statusText}`);
  if (!response.body) throw new Error("the response is no stream: it has no body");
  yield* parseSSEStream<T>(response.body, signal);
}

/**
 * Writes events as a stream of server-sent events, for instance to pass them on to a browser.
 *
 * @param options.signal ends the stream with the signal's reason.
 * @param options.serialize writes one event; default `JSON.stringify`.
 */
export function asyncIterableToSSEStream<T>(
  events: AsyncIterable<T>,
  options: { signal?: AbortSignal; serialize?: (event: T) => string } = {},
): ReadableStream<Uint8Array> {
  const { signal, serialize = JSON.stringify } = options;
  const encoder = new TextEncoder();
  const iterator = events[Symbol.asyncIterator]();
  let abort: (() => void) | undefined;
  return new ReadableStream({
    start(controller) {
      abort = () => {
        controller.error(signal?.reason);
        void iterator.return?.();
      };
      if (signal?.aborted) abort();
      else signal?.addEventListener("abort", abort, { once: true });
    },
    async pull(controller) {
      const { done, value } = await iterator.next();
      if (signal?.aborted) return;
      if (!done) {
        const data = serialize(value).replaceAll("\n", "\ndata: ");
        controller.enqueue(encoder.encode(`data: ${data}\n\n`));
        return;
      }
      if (abort) signal?.removeEventListener("abort", abort);
      controller.close();
    },
    async cancel() {
      if (abort) signal?.removeEventListener("abort", abort);
      await iterator.return?.();
    },
  });
}
