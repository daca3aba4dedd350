import type { ServerResponse } from "node:http";
import { expect, test } from "vitest";
import {
  ConnectionError,
  type ExecEvent,
  ExecNotFoundError,
  parseSSEStream,
  ServiceNotRespondingError,
} from "../../src/index.js";
import { EdgeServer, failure, json, type Received, result } from "./server.js";

const time = "2026-01-01T00:00:00.000Z";
const start = { id: "0-0", event: { type: "start", command: "x", execId: "e", timestamp: time } };
const out = (id: string, data: string, type = "stdout") => ({ id, event: { type, data, timestamp: time } });
const complete = (id: string) => ({ id, event: { type: "complete", exitCode: 0, duration: 1, timestamp: time } });
const write = ({ id, event }: { id: string; event: object }) => `id: ${id}\ndata: ${JSON.stringify(event)}\n\n`;

function begin(response: ServerResponse): ServerResponse {
  return response.writeHead(200, { "content-type": "text/event-stream" });
}

async function all(stream: ReadableStream<Uint8Array>): Promise<ExecEvent[]> {
  const events: ExecEvent[] = [];
  for await (const event of parseSSEStream<ExecEvent>(stream)) events.push(event);
  return events;
}

/** Writes, lets the bytes arrive, breaks the connection. */
function breakAfter(response: ServerResponse, text: string): void {
  begin(response).write(text, () => setTimeout(() => response.destroy(), 20));
}

test("S12 a stream that breaks off goes on where it was, without a gap or a repeat", async () => {
  await using edge = await EdgeServer.start((_, response) => {
    const unfinished = write(out("8-3", "never whole")).slice(0, -9);
    if (edge.received.length === 1) return breakAfter(response, write(start) + write(out("5-0", "héllo")) + unfinished);
    if (edge.received.length === 2) return void response.destroy();
    // The first thing after a resumption is that the command has started, once more.
    if (edge.received.length === 3)
      return breakAfter(response, `: hi\n\n${write(start)}${write(out("5-4", "oops", "stderr"))}`);
    begin(response).end(write(start) + write(out("9-4", "more")) + write(complete("9-4")));
  });
  const events = await all(await edge.sandbox().execStream("x", { encoding: "utf8" }));
  expect(events.map((event) => [event.type, "data" in event ? event.data : undefined])).toEqual([
    ["start", undefined],
    ["stdout", "héllo"],
    ["stderr", "oops"],
    ["stdout", "more"],
    ["complete", undefined],
  ]);
  const { execId } = JSON.parse(edge.received[0]?.body.toString() ?? "");
  const resumed = edge.received.slice(1);
  expect(
    resumed.every(({ method, path }) => method === "GET" && path === `/v1/sandboxes/edge/execs/${execId}/stream`),
  ).toBe(true);
  expect(resumed.map(({ query }) => query.toString())).toEqual([
    "stdoutOffset=5&stderrOffset=0&encoding=utf8",
    "stdoutOffset=5&stderrOffset=0&encoding=utf8",
    "stdoutOffset=5&stderrOffset=4&encoding=utf8",
  ]);
});

test("S12 a stream that ends without the command's end is a lost one, not an end", async () => {
  await using edge = await EdgeServer.start((_, response) => {
    if (edge.received.length === 1) return void begin(response).end(write(start) + write(out("1-0", "a")));
    begin(response).end(write(start) + write(out("2-0", "b")) + write(complete("2-0")));
  });
  const events = await all(await edge.sandbox().execStream("x"));
  expect(events.map((event) => event.type)).toEqual(["start", "stdout", "stdout", "complete"]);
});

test("S12 a connection lost before the first event sends the same command again, under the same id", async () => {
  await using edge = await EdgeServer.start((_, response) => {
    if (edge.received.length === 1) return void response.destroy();
    if (edge.received.length === 2) return breakAfter(response, ": nothing yet\n\n");
    begin(response).end(write(start) + write(complete("0-0")));
  });
  const events = await all(await edge.sandbox().execStream("x"));
  expect(events.map((event) => event.type)).toEqual(["start", "complete"]);
  const bodies = edge.received.map(({ body }) => body.toString());
  expect(new Set(bodies).size).toBe(1);
});

test("S12 a server that stays away ends the stream with an error", async () => {
  await using edge = await EdgeServer.start((_, response) => {
    if (edge.received.length === 1) return breakAfter(response, write(start));
    response.destroy();
  });
  await expect(all(await edge.sandbox().execStream("x"))).rejects.toThrow(ConnectionError);
  expect(edge.received.length).toBeGreaterThan(3);
});

test("S12 a command that the server no longer knows ends the stream with its error", async () => {
  await using edge = await EdgeServer.start((_, response) => {
    if (edge.received.length === 1) return breakAfter(response, write(start));
    failure(response, "EXEC_NOT_FOUND", 404);
  });
  await expect(all(await edge.sandbox().execStream("x"))).rejects.toThrow(ExecNotFoundError);
});

test("S02 chunks are whole messages, so no character is split over two, however the network cuts them", async () => {
  const bytes = Buffer.from(
    write(start) + write(out("12-0", "漢字🦀é\n")) + write(out("20-0", "🦀🦀")) + write(complete("20-0")),
  );
  await using edge = await EdgeServer.start(async (_, response) => {
    begin(response);
    response.socket?.setNoDelay(true);
    for (let at = 0; at < bytes.length; at += 7) {
      response.write(bytes.subarray(at, at + 7));
      await new Promise(setImmediate);
    }
    response.end();
  });
  const stream = await edge.sandbox().execStream("x");
  const strict = new TextDecoder("utf-8", { fatal: true });
  let text = "";
  for await (const chunk of stream as unknown as AsyncIterable<Uint8Array>) {
    const piece = strict.decode(chunk);
    expect(piece.endsWith("\n\n")).toBe(true);
    text += piece;
  }
  expect(text).toBe(bytes.toString());
});

test("S12 leaving a stream does not kill the command, aborting does", async () => {
  await using edge = await EdgeServer.start((request, response) => {
    if (request.path.endsWith("/cancel")) return json(response, {});
    begin(response).write(write(start));
  });
  const left = await edge.sandbox().execStream("x");
  await left.cancel();
  expect(edge.received).toHaveLength(1);

  const abort = new AbortController();
  const stream = await edge.sandbox().execStream("x", { signal: abort.signal });
  const reader = stream.getReader();
  await reader.read();
  abort.abort();
  await expect(reader.read()).rejects.toMatchObject({ name: "AbortError" });
  expect(edge.received.map(({ path }) => path.split("/").at(-1))).toEqual(["stream", "stream", "cancel"]);
});

test("S12 an aborted stream fails with the reason, also when the command's end comes first", async () => {
  let first: ServerResponse | undefined;
  await using edge = await EdgeServer.start((request, response) => {
    if (!request.path.endsWith("/cancel")) {
      first = begin(response);
      return void first.write(write(start));
    }
    first?.end(write(complete("0-0")));
    setTimeout(() => json(response, {}), 30);
  });
  const abort = new AbortController();
  const reader = (await edge.sandbox().execStream("x", { signal: abort.signal })).getReader();
  await reader.read();
  abort.abort(new Error("enough"));
  await expect(reader.read()).rejects.toThrow("enough");
});

/** A server that streams `events` and knows the result. */
function streaming(events: { id: string; event: object }[], fields: object) {
  return (request: Received, response: ServerResponse) => {
    if (request.path.endsWith("/result")) return json(response, result(request, fields));
    begin(response).end(events.map(write).join(""));
  };
}

test("exec with onOutput calls back while it runs and returns the server's own result", async () => {
  const events = [start, out("2-0", "a\n"), out("2-2", "e\n", "stderr"), out("4-2", "b\n"), complete("4-2")];
  await using edge = await EdgeServer.start(
    streaming(events, { stdout: "a\nb\n", stderr: "e\n", truncated: { stdout: 7 } }),
  );
  const seen: string[][] = [];
  const completed: unknown[] = [];
  const got = await edge.sandbox().exec("x", {
    stream: true,
    onOutput: (stream, data) => seen.push([stream, data]),
    onComplete: (result) => completed.push(result),
  });
  expect(seen).toEqual([
    ["stdout", "a\n"],
    ["stderr", "e\n"],
    ["stdout", "b\n"],
  ]);
  expect(got).toMatchObject({ stdout: "a\nb", stderr: "e", truncated: { stdout: 7 } });
  expect(completed).toEqual([got]);
});

test("exec with onOutput rejects with the error that ended the command", async () => {
  const detail = {
    code: "COMMAND_TIMEOUT",
    message: "timeout",
    context: { timeout: 9 },
    httpStatus: 408,
    timestamp: time,
  };
  const failed = { id: "2-0", event: { type: "error", error: "timeout", detail, timestamp: time } };
  await using edge = await EdgeServer.start(streaming([start, failed], {}));
  const call = edge.sandbox().exec("x", { stream: true, onOutput: () => {} });
  await expect(call).rejects.toMatchObject({ name: "CommandTimeoutError", timeout: 9 });
});

test("C15 answers that never move the cursor are asked for with pauses, and not without end", async () => {
  await using edge = await EdgeServer.start((_, response) => void begin(response).end(write(start)));
  const began = Date.now();
  await expect(all(await edge.sandbox().execStream("x"))).rejects.toThrow(ConnectionError);
  // As many as a server that stays away is asked: with the pauses, not one after the other.
  expect(edge.received.length).toBeLessThan(15);
  expect(Date.now() - began).toBeGreaterThan(5000);
});

test("C15 progress after each loss is followed as long as it lasts", async () => {
  const pieces = 20;
  await using edge = await EdgeServer.start((_, response) => {
    const at = edge.received.length;
    if (at <= pieces) return void begin(response).end(write(start) + write(out(`${at}-0`, "a")));
    begin(response).end(write(start) + write(complete(`${pieces}-0`)));
  });
  expect(await all(await edge.sandbox().execStream("x"))).toHaveLength(pieces + 2);
});

test("C15 an answer that is no event stream is refused at once, not read for events", async () => {
  await using edge = await EdgeServer.start((_, response) => {
    response.writeHead(200, { "content-type": "text/html" }).end(`<p>Welcome</p>\n\n${write(start)}`);
  });
  await expect(edge.sandbox().execStream("x")).rejects.toThrow(ServiceNotRespondingError);
  await expect(edge.sandbox().runCodeStream("x")).rejects.toThrow(ServiceNotRespondingError);
  await expect(edge.sandbox().streamProcessLogs("x")).rejects.toThrow(ServiceNotRespondingError);
  expect(edge.received).toHaveLength(3);
});
