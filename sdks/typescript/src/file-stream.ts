import { decodeBase64 } from "./base64.js";
import { errorOf } from "./errors.js";
import { parseSSEStream } from "./sse.js";
import type { FileChunk, FileMetadata, FileStreamEvent } from "./types.js";

/**
 * Reads what `readFileStream` returns: yields the file's content piece by piece, text of text files and bytes of
 * others; returns what the file is.
 */
export async function* streamFile(
  stream: ReadableStream<Uint8Array>,
): AsyncGenerator<FileChunk, FileMetadata, undefined> {
  let metadata: FileMetadata | undefined;
  for await (const event of parseSSEStream<FileStreamEvent>(stream)) {
    if (event.type === "metadata") {
      const { mimeType, size, isBinary, encoding } = event;
      metadata = { mimeType, size, isBinary, encoding };
    } else if (event.type === "error") {
      throw errorOf(event.detail);
    } else if (metadata === undefined) {
      throw new Error(`the file's stream begins with "${event.type}" instead of its metadata`);
    } else if (event.type === "chunk") {
      yield metadata.encoding === "base64" ? decodeBase64(event.data) : event.data;
    } else if (event.type === "complete") {
      return metadata;
    }
  }
  throw new Error("the file's stream broke off before its end");
}

/** Reads what `readFileStream` returns into memory: a string of a text file, bytes of any other. */
export async function collectFile(
  stream: ReadableStream<Uint8Array>,
): Promise<{ content: string | Uint8Array; metadata: FileMetadata }> {
  const chunks: FileChunk[] = [];
  const pieces = streamFile(stream);
  for (;;) {
    const { done, value } = await pieces.next();
    if (done) return { content: joined(chunks, value), metadata: value };
    chunks.push(value);
  }
}

function joined(chunks: FileChunk[], metadata: FileMetadata): string | Uint8Array {
  if (metadata.encoding !== "base64") return chunks.join("");
  const parts = chunks as Uint8Array[];
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
