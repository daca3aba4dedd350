import { type ConnectOptions, connect, type ExecEvent, getSandbox, parseSSEStream, type Sandbox } from "sandcrab";
import { test as base, inject } from "vitest";

let count = 0;

/** An id that no other test of any file uses. */
export function freshId(): string {
  return `ts-${process.pid}-${process.env.VITEST_POOL_ID ?? 0}-${Date.now().toString(36)}-${count++}`;
}

/** A connection to the server under test. */
export function connection(url: string = inject("url"), options: ConnectOptions = {}) {
  return connect({ url, apiKey: inject("key"), ...options });
}

/** Tests with a sandbox of their own, which is destroyed at their end. */
export const test = base.extend<{ sandbox: Sandbox }>({
  sandbox: async ({}, use) => {
    const sandbox = getSandbox(connection(), freshId());
    await use(sandbox);
    await sandbox.destroy();
  },
});

/** All events of a command's stream. */
export async function eventsOf(stream: ReadableStream<Uint8Array>): Promise<ExecEvent[]> {
  const events: ExecEvent[] = [];
  for await (const event of parseSSEStream<ExecEvent>(stream)) events.push(event);
  return events;
}

/** What a command's stream said on stdout, put together. */
export function stdoutOf(events: ExecEvent[]): string {
  return events.map((event) => (event.type === "stdout" ? event.data : "")).join("");
}

/** What a call rejects with; fails if it does not reject. */
export async function rejection(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    (value) => {
      throw new Error(`expected a rejection, got ${JSON.stringify(value)}`);
    },
    (error: unknown) => error,
  );
}
