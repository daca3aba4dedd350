import type * as sandcrab from "sandcrab";

/** What the script below found. */
export interface Findings {
  state: string;
  streamed: string;
  file: string;
  bytes: number[];
  aborted: string;
  refused: string;
}

/**
 * The same small program in every runtime: a session, commands, streams, files, an abort, an error. It is sent to the
 * runtime as text, so it uses nothing but its arguments and the platform.
 */
export async function script(api: typeof sandcrab, url: string, apiKey: string, id: string): Promise<Findings> {
  const sandbox = api.getSandbox(api.connect({ url, apiKey }), id);
  const session = await sandbox.createSession({ id: "s", env: { GREETING: "hello" }, cwd: "/workspace/here" });
  await session.exec("NAME=world; cd ..");
  const state = (await session.exec('echo "$GREETING $NAME $PWD"')).stdout;

  let streamed = "";
  for await (const event of api.parseSSEStream<sandcrab.ExecEvent>(await session.execStream("printf 'ü🦀'; exit 3"))) {
    if (event.type === "stdout") streamed += event.data;
    if (event.type === "complete") streamed += ` ${event.exitCode}`;
  }

  const upload = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const byte of [0, 127, 128, 255]) controller.enqueue(new Uint8Array([byte]));
      controller.close();
    },
  });
  await sandbox.writeFile("text.txt", "ünï");
  await sandbox.writeFile("bytes", upload);
  const file = (await sandbox.readFile("text.txt")).content;
  const { content, size, mimeType } = await sandbox.readFile("bytes", { encoding: "none" });
  if (size !== 4 || mimeType !== "application/octet-stream") throw new Error(`headers were lost: ${size} ${mimeType}`);
  const bytes = [...new Uint8Array(await new Response(content).arrayBuffer())];

  const abort = new AbortController();
  const running = session.exec("sleep 30", { signal: abort.signal }).catch((error: Error) => error.name);
  setTimeout(() => abort.abort(), 50);
  const aborted = String(await running);
  const refused = await sandbox.readFile("/no/file").then(
    () => "",
    (error) => `${error.name} ${error.code} ${error instanceof api.FileNotFoundError}`,
  );
  await sandbox.destroy();
  return { state, streamed, file, bytes, aborted, refused };
}

export const EXPECTED: Findings = {
  state: "hello world /workspace",
  streamed: "ü🦀 3",
  file: "ünï",
  bytes: [0, 127, 128, 255],
  aborted: "AbortError",
  refused: "FileNotFoundError FILE_NOT_FOUND true",
};
