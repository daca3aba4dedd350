import { decodeBase64 } from "./base64.js";
import { textOf } from "./check.js";
import { invalidField } from "./errors.js";
import type { Target } from "./target.js";
import { retrying } from "./transport.js";
import type * as types from "./types.js";
import type * as wire from "./wire.js";

type SessionId = string | undefined;

/** Writes a file whole; see `Operations.writeFile`. */
export async function writeFile(
  target: Target,
  sessionId: SessionId,
  path: string,
  content: string | Uint8Array | ReadableStream<Uint8Array>,
  options: types.WriteFileOptions,
): Promise<types.FileResult> {
  const body = await bodyOf(content, options.encoding);
  const created = target.ready();
  if (created) await created;
  return target.transport.json<wire.FileChanged>({
    operation: "writeFile",
    method: "PUT",
    path: contentPath(target, "content", { path, mode: options.mode?.toString(), sessionId }),
    body,
    json: false,
  });
}

/** Content as raw bytes: no second encoding on the way, no limit but the disk's. */
async function bodyOf(
  content: string | Uint8Array | ReadableStream<Uint8Array>,
  encoding: types.WriteFileOptions["encoding"],
): Promise<BodyInit> {
  if (content instanceof ReadableStream) {
    return canStreamUploads() ? content : new Uint8Array(await new Response(content).arrayBuffer());
  }
  if (content instanceof Uint8Array) return content as Uint8Array<ArrayBuffer>;
  if (typeof content !== "string") {
    throw invalidField("content", "must be a string, a Uint8Array or a ReadableStream of bytes");
  }
  // Bytes, not the string itself: `fetch` would call that text/plain.
  if (encoding === undefined || encoding === "utf8" || encoding === "utf-8") return new TextEncoder().encode(content);
  if (encoding !== "base64") throw invalidField("encoding", 'must be "utf8", "utf-8" or "base64"');
  try {
    return decodeBase64(content);
  } catch {
    throw invalidField("content", "is not base64, which encoding says it is");
  }
}

/** Browsers send a stream over HTTP/2 only, or not at all; there the content is collected first. */
function canStreamUploads(): boolean {
  return !globalThis.navigator?.userAgent?.startsWith("Mozilla/");
}

/** Reads a file into one answer. */
export function readFile(
  target: Target,
  sessionId: SessionId,
  path: string,
  encoding: Exclude<types.FileEncoding, "none"> | undefined,
): Promise<types.ReadFileResult> {
  return target.read<wire.ReadFileResult>("readFile", "POST", "/files/read", { path, sessionId, encoding });
}

/** Opens a file's bytes. */
export async function openFile(
  target: Target,
  sessionId: SessionId,
  path: string,
): Promise<types.ReadFileStreamResult> {
  const response = await get(target, "readFile", contentPath(target, "content", { path, sessionId }));
  const { headers } = response;
  return {
    success: true,
    path,
    content: response.body ?? new ReadableStream({ start: (controller) => controller.close() }),
    isBinary: headers.get("x-sandcrab-is-binary") === "true",
    mimeType: headers.get("x-sandcrab-mime-type") ?? "application/octet-stream",
    size: Number(headers.get("content-length") ?? 0),
    timestamp: new Date().toISOString(),
  };
}

/** Opens a file as a stream of `FileStreamEvent`s. */
export async function readFileStream(
  target: Target,
  sessionId: SessionId,
  path: string,
): Promise<ReadableStream<Uint8Array>> {
  const response = await get(target, "readFileStream", contentPath(target, "stream", { path, sessionId }));
  return response.body ?? new ReadableStream({ start: (controller) => controller.close() });
}

async function get(target: Target, operation: string, path: string): Promise<Response> {
  const created = target.ready();
  if (created) await created;
  return retrying(target.transport, () => target.transport.send({ operation, method: "GET", path }));
}

function contentPath(target: Target, route: string, fields: Record<string, string | undefined>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined) query.set(name, textOf(name, value));
  }
  return `${target.path}/files/${route}?${query}`;
}
