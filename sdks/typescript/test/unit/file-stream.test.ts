import { expect, test } from "vitest";
import { decodeBase64 } from "../../src/base64.js";
import { asyncIterableToSSEStream, collectFile, FileNotFoundError, streamFile } from "../../src/index.js";

async function* from<T>(list: T[]) {
  yield* list;
}
const stream = (...events: object[]) => asyncIterableToSSEStream(from(events));
const text = { type: "metadata", mimeType: "text/plain", size: 6, isBinary: false, encoding: "utf-8" };
const binary = { type: "metadata", mimeType: "image/png", size: 5, isBinary: true, encoding: "base64" };

test("F01 a text file is collected as a string, any other as bytes", async () => {
  const { type: _, ...metadata } = text;
  const done = { type: "complete", bytesRead: 6 };
  const chunk = (data: string) => ({ type: "chunk", data });
  expect(await collectFile(stream(text, chunk("hé"), chunk("llo"), done))).toEqual({ content: "héllo", metadata });
  const { content } = await collectFile(
    stream(binary, chunk("AAEC"), chunk("/v8="), { type: "complete", bytesRead: 5 }),
  );
  expect(content).toEqual(new Uint8Array([0, 1, 2, 254, 255]));
  expect((await collectFile(stream(text, done))).content).toBe("");
});

test("X01 a stream that fails or breaks off is an error, never a short file", async () => {
  const detail = { code: "FILE_NOT_FOUND", message: "no /a", context: { path: "/a" }, httpStatus: 404, timestamp: "" };
  await expect(collectFile(stream(text, { type: "error", error: "x", detail }))).rejects.toThrow(FileNotFoundError);
  await expect(collectFile(stream(text, { type: "chunk", data: "h" }))).rejects.toThrow("broke off");
  await expect(collectFile(stream({ type: "chunk", data: "h" }))).rejects.toThrow("metadata");
});

test("streamFile yields pieces and returns the metadata", async () => {
  const pieces = streamFile(stream(text, { type: "chunk", data: "a" }, { type: "complete", bytesRead: 1 }));
  expect(await pieces.next()).toEqual({ done: false, value: "a" });
  expect(await pieces.next()).toMatchObject({ done: true, value: { mimeType: "text/plain" } });
});

test("base64 is decoded to the same bytes", () => {
  const bytes = Uint8Array.from({ length: 70_001 }, (_, at) => (at * 31) & 255);
  expect(decodeBase64(Buffer.from(bytes).toString("base64"))).toEqual(bytes);
  expect(() => decodeBase64("no base64!")).toThrow();
});
