import type * as sandcrab from "sandcrab";

/** What the script below found. */
export interface Findings {
  state: string;
  streamed: string;
  file: string;
  bytes: number[];
  aborted: string;
  refused: string;
  heard: (string | number[])[];
}

/**
 * The same small program in every runtime: a session, commands, streams, files, an abort, an error. It is sent to the
 * runtime as text, so it uses nothing but its arguments and the platform.
 */
export async function script(
  api: typeof sandcrab,
  url: string,
  apiKey: string,
  id: string,
  site: string,
  WebSocket?: sandcrab.WebSocketClass,
): Promise<Findings> {
  const sandbox = api.getSandbox(api.connect({ url, apiKey, WebSocket }), id);
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

  await sandbox.writeFile("site.mjs", site);
  const server = await sandbox.startProcess("node site.mjs 8080");
  await server.waitForPort(8080, { mode: "tcp", timeout: 20_000 });
  const { webSocket, status } = await sandbox.wsConnect(new Request("http://any.host/live?a=1"), 8080);
  if (status !== 101) throw new Error(`the socket's answer has status ${status}`);
  const messages: (string | ArrayBuffer)[] = [];
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    webSocket.addEventListener("message", ({ data }) => messages.push(data));
    webSocket.addEventListener("close", resolve);
  });
  // What came until now was kept.
  webSocket.accept();
  webSocket.send("ünï");
  webSocket.send(new Uint8Array([0, 128, 255]));
  webSocket.send("bye");
  const { code, reason } = await closed;
  const heard = await Promise.all(
    messages.map(async (data) =>
      typeof data === "string" ? data : [...new Uint8Array(await new Response(data).arrayBuffer())],
    ),
  );
  heard.push(`${code} ${reason}`);
  await sandbox.destroy();
  return { state, streamed, file, bytes, aborted, refused, heard };
}

export const EXPECTED: Findings = {
  state: "hello world /workspace",
  streamed: "ü🦀 3",
  file: "ünï",
  bytes: [0, 127, 128, 255],
  aborted: "AbortError",
  refused: "FileNotFoundError FILE_NOT_FOUND true",
  heard: ['{"hello":"/live?a=1","host":"localhost:8080"}', "ünï", [0, 128, 255], "4001 so long"],
};

/** What a visitor got of each path; `fits`: whether the length that was told is that of the bytes that came. */
export type Visits = Record<string, { status: number; encoding: string | null; fits: boolean; text: string }>;

/** What a program does that takes visitors in: passes them on. */
export async function visits(api: typeof sandcrab, url: string, apiKey: string, preview: string): Promise<Visits> {
  const found: Visits = {};
  for (const path of ["/gzip", "/br", "/login", "/nothing", "/echo"]) {
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(new TextEncoder().encode("one, "));
        controller.enqueue(new TextEncoder().encode("two"));
        controller.close();
      },
    });
    const upload: RequestInit & { duplex: "half" } = { method: "POST", body, duplex: "half" };
    const request = new Request(new URL(path, preview), path === "/echo" ? upload : { redirect: "manual" });
    const answer = await api.proxyToSandbox(request, { Sandbox: api.connect({ url, apiKey }) });
    if (answer === null) throw new Error(`${request.url} was taken for no preview`);
    const { status, headers } = answer;
    const bytes = new Uint8Array(await answer.arrayBuffer());
    const [encoding, length] = [headers.get("content-encoding"), headers.get("content-length")];
    const fits = length === null || Number(length) === bytes.length;
    found[path] = { status, encoding, fits, text: encoding === null ? new TextDecoder().decode(bytes) : "" };
  }
  // The same port as a program reaches it, for which `fetch` decodes what it gets.
  const id = new URL(preview).host.split(".")[0]?.split("-").slice(1, -1).join("-") ?? "";
  const sandbox = api.getSandbox(api.connect({ url, apiKey }), id);
  const echo = await sandbox.containerFetch("/echo", { method: "POST", body: "three" }, 8080);
  const packed = await (await sandbox.containerFetch(new Request("http://any.host/gzip"), 8080)).text();
  const text = `${await echo.text()} ${packed.length}`;
  found.containerFetch = { status: echo.status, encoding: echo.headers.get("content-encoding"), fits: true, text };
  return found;
}

/** A body that is compressed is shorter than its text: where `fits`, its bytes came as they were. */
export const EXPECTED_VISITS: Visits = {
  "/gzip": { status: 200, encoding: "gzip", fits: true, text: "" },
  "/br": { status: 200, encoding: "br", fits: true, text: "" },
  "/login": { status: 302, encoding: null, fits: true, text: "go" },
  "/nothing": { status: 204, encoding: null, fits: true, text: "" },
  "/echo": { status: 201, encoding: null, fits: true, text: "one, two" },
  containerFetch: { status: 201, encoding: null, fits: true, text: "three 34000" },
};
