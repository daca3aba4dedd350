import { expect, test } from "vitest";
import { asyncIterableToSSEStream, parseSSEStream, responseToAsyncIterable } from "../../src/index.js";

async function all<T>(events: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const event of events) list.push(event);
  return list;
}

/** A stream of `text`'s bytes in pieces of `size`. */
function pieces(text: string, size: number): ReadableStream<Uint8Array> {
  const bytes = new TextEncoder().encode(text);
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.slice(at, at + size));
      at += size;
    },
  });
}

const events = [
  { type: "stdout", data: "héllo 🦀\n\ndata: x" },
  { type: "stderr", data: "漢字" },
  { type: "complete", exitCode: 0 },
];
const text = events.map((event, at) => `id: ${at}-0\ndata: ${JSON.stringify(event)}\n\n`).join(": keep-alive\n\n");

test.each([1, 2, 3, 7, 64, 10_000])(
  "S02 events come whole however their bytes are cut (%i at a time)",
  async (size) => {
    expect(await all(parseSSEStream(pieces(text, size)))).toEqual(events);
    expect(await all(parseSSEStream(pieces(text.replaceAll("\n", "\r\n"), size)))).toEqual(events);
  },
);

test("data over several lines is joined, a last event needs no blank line, [DONE] is none", async () => {
  const stream = pieces('event: x\ndata: {"a":\ndata: 1}\n\ndata: [DONE]\n\ndata:{"b":2}', 5);
  expect(await all(parseSSEStream(stream))).toEqual([{ a: 1 }, { b: 2 }]);
});

test("an event that is no JSON is an error, not a silent gap", async () => {
  await expect(all(parseSSEStream(pieces("data: {oops\n\n", 100)))).rejects.toThrow(SyntaxError);
});

test("aborting ends the iteration with the signal's reason and closes the stream", async () => {
  let cancelled: unknown;
  const stream = new ReadableStream<Uint8Array>({
    cancel(reason) {
      cancelled = reason;
    },
  });
  const abort = new AbortController();
  const reading = all(parseSSEStream(stream, abort.signal));
  abort.abort();
  await expect(reading).rejects.toMatchObject({ name: "AbortError" });
  expect(cancelled).toMatchObject({ name: "AbortError" });
});

test("leaving the loop early closes the stream", async () => {
  let cancelled = false;
  const stream = new ReadableStream<Uint8Array>({
    pull: (controller) => controller.enqueue(new TextEncoder().encode('data: {"n":1}\n\n')),
    cancel() {
      cancelled = true;
    },
  });
  for await (const event of parseSSEStream(stream)) {
    expect(event).toEqual({ n: 1 });
    break;
  }
  expect(cancelled).toBe(true);
});

test("asyncIterableToSSEStream writes what parseSSEStream reads", async () => {
  async function* source() {
    yield* events;
  }
  expect(await all(parseSSEStream(asyncIterableToSSEStream(source())))).toEqual(events);
  const shout = asyncIterableToSSEStream(source(), { serialize: (event) => JSON.stringify(event, null, 1) });
  expect(await all(parseSSEStream(shout))).toEqual(events);
});

test("asyncIterableToSSEStream passes on failure and abort, and returns the source", async () => {
  async function* broken() {
    yield events[0];
    throw new RangeError("source broke");
  }
  await expect(all(parseSSEStream(asyncIterableToSSEStream(broken())))).rejects.toThrow("source broke");

  let returned = false;
  async function* endless() {
    try {
      for (;;) yield 1;
    } finally {
      returned = true;
    }
  }
  const abort = new AbortController();
  const reader = asyncIterableToSSEStream(endless(), { signal: abort.signal }).getReader();
  await reader.read();
  abort.abort();
  await expect(reader.read()).rejects.toMatchObject({ name: "AbortError" });
  await expect.poll(() => returned).toBe(true);
});

test("responseToAsyncIterable reads a response and refuses one that is none", async () => {
  expect(await all(responseToAsyncIterable(new Response(text)))).toEqual(events);
  await expect(all(responseToAsyncIterable(new Response("no", { status: 500 })))).rejects.toThrow("500");
  await expect(all(responseToAsyncIterable(new Response(null)))).rejects.toThrow("no body");
});

test("C15 one long event takes time in proportion to its length, however it is cut", async () => {
  const time = async (length: number) => {
    const began = performance.now();
    const [event] = await all(parseSSEStream<string>(pieces(`data: "${"x".repeat(length)}"\n\n`, 1024)));
    expect(event).toHaveLength(length);
    return performance.now() - began;
  };
  await time(1 << 20);
  // Sixteen times as long took 256 times as long.
  const [short, long] = [await time(1 << 20), await time(16 << 20)];
  expect(long).toBeLessThan(64 * Math.max(short, 20));
  expect(long).toBeLessThan(8000);
});
