import {
  collectFile,
  FileExistsError,
  FileNotFoundError,
  IsDirectoryError,
  NameTooLongError,
  NotDirectoryError,
  PermissionDeniedError,
  type Sandbox,
  streamFile,
  ValidationFailedError,
} from "sandcrab";
import { describe, expect } from "vitest";
import { rejection, test } from "../support/sandbox.js";

const ISO = expect.stringMatching(/^\d{4}-\d\d-\d\dT.+Z$/);
const PNG = Buffer.from("89504e470d0a1a0a0000000d49484452", "hex");
const pattern = (size: number) =>
  Buffer.from(Uint8Array.from({ length: size }, (_, at) => (at * 31 + (at >> 10)) & 255));

async function sha256(sandbox: Sandbox, path: string): Promise<string> {
  return (await sandbox.exec(`sha256sum < '${path}'`)).stdout.slice(0, 64);
}

async function sha256Of(bytes: Uint8Array): Promise<string> {
  return Buffer.from(await crypto.subtle.digest("SHA-256", new Uint8Array(bytes))).toString("hex");
}

describe("writeFile and readFile", () => {
  test("F01 text goes and comes as it is; parents are made; the answer is documented", async ({ sandbox }) => {
    const content = "zeile 1\r\n\tünï 🦀\n\n'\"$`\\ \u0000 end";
    const written = await sandbox.writeFile("/srv/new/dirs/text.txt", content);
    expect(written).toEqual({ success: true, path: "/srv/new/dirs/text.txt", timestamp: ISO });
    expect(await sandbox.readFile("/srv/new/dirs/text.txt")).toMatchObject({ success: true, timestamp: ISO });
    await sandbox.writeFile("plain.md", "# ünï\n");
    expect(await sandbox.readFile("plain.md")).toEqual({
      success: true,
      path: "plain.md",
      content: "# ünï\n",
      encoding: "utf-8",
      isBinary: false,
      mimeType: expect.stringMatching(/^text\//),
      size: 8,
      timestamp: ISO,
    });
    expect(await sha256(sandbox, "/srv/new/dirs/text.txt")).toBe(await sha256Of(Buffer.from(content)));
  });

  test("F01 a binary file is read as base64 unless text is asked for", async ({ sandbox }) => {
    await sandbox.writeFile("/tmp/image.png", PNG);
    const read = await sandbox.readFile("/tmp/image.png");
    expect(read).toMatchObject({ encoding: "base64", isBinary: true, mimeType: "image/png", size: PNG.length });
    expect(Buffer.from(read.content, "base64")).toEqual(PNG);
    await sandbox.writeFile("/tmp/t", "text");
    expect(await sandbox.readFile("/tmp/t", { encoding: "base64" })).toMatchObject({
      content: "dGV4dA==",
      encoding: "base64",
    });
    for (const encoding of ["utf8", "utf-8"] as const) {
      expect(await sandbox.readFile("/tmp/t", { encoding })).toMatchObject({ content: "text", encoding: "utf-8" });
    }
  });

  test("F01 base64, bytes and streams are written as the bytes they stand for", async ({ sandbox }) => {
    const bytes = pattern(300_000);
    await sandbox.writeFile("/tmp/a", bytes.toString("base64"), { encoding: "base64" });
    await sandbox.writeFile("/tmp/b", new Uint8Array(bytes));
    await sandbox.writeFile("/tmp/c", new Blob([new Uint8Array(bytes)]).stream());
    await sandbox.writeFile("/tmp/d", bytes.toString("latin1"), { encoding: "utf8" });
    const sum = await sha256Of(bytes);
    for (const path of ["/tmp/a", "/tmp/b", "/tmp/c"]) expect(await sha256(sandbox, path), path).toBe(sum);
    expect(await sha256(sandbox, "/tmp/d")).toBe(await sha256Of(Buffer.from(bytes.toString("latin1"), "utf8")));
    await sandbox.writeFile("/tmp/empty", "");
    expect(await sandbox.readFile("/tmp/empty")).toMatchObject({ content: "", size: 0 });
  });

  test("F01 40 MB stream both ways", async ({ sandbox }) => {
    const block = pattern(1 << 20);
    let left = 40;
    const up = new ReadableStream<Uint8Array>({
      pull: (controller) => (left-- > 0 ? controller.enqueue(new Uint8Array(block)) : controller.close()),
    });
    await sandbox.writeFile("/tmp/big", up);
    const { content, size, mimeType, isBinary } = await sandbox.readFile("/tmp/big", { encoding: "none" });
    expect({ size, mimeType, isBinary }).toEqual({
      size: 40 << 20,
      mimeType: "application/octet-stream",
      isBinary: true,
    });
    const down = new Uint8Array(await new Response(content).arrayBuffer());
    expect(down.length).toBe(40 << 20);
    expect(await sha256Of(down)).toBe(await sha256(sandbox, "/tmp/big"));
  });

  test("F01 a write keeps the mode, follows a final link, and is whole or not there", async ({ sandbox }) => {
    await sandbox.exec("echo old > /tmp/real; chmod 640 /tmp/real; ln -s real /tmp/link");
    await sandbox.writeFile("/tmp/link", "new");
    expect((await sandbox.exec("cat /tmp/real; stat -c ' %a' /tmp/real; readlink /tmp/link")).stdout).toBe(
      "new 640\nreal",
    );
    await sandbox.writeFile("/tmp/script", "#!/bin/sh\necho ran", { mode: 0o755 });
    expect((await sandbox.exec("/tmp/script")).stdout).toBe("ran");
    await sandbox.writeFile("/tmp/plain", "x");
    expect((await sandbox.exec("stat -c %a /tmp/plain")).stdout).toBe("644");
    const breaking = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(new TextEncoder().encode("half")),
      pull: (controller) => controller.error(new Error("source broke")),
    });
    await rejection(sandbox.writeFile("/tmp/plain", breaking));
    expect((await sandbox.exec("cat /tmp/plain; echo; ls -A /tmp")).stdout.split("\n")).toEqual([
      "x",
      "link",
      "plain",
      "real",
      "script",
    ]);
  });

  test("S14 relative paths start at /workspace, or at the session's cwd as it stands", async ({ sandbox }) => {
    const session = await sandbox.createSession({ id: "s" });
    await session.exec("mkdir -p /tmp/here && cd /tmp/here");
    await session.writeFile("f", "session");
    await sandbox.exec("cd /");
    await sandbox.writeFile("f", "sandbox");
    expect((await sandbox.readFile("/tmp/here/f")).content).toBe("session");
    expect((await sandbox.readFile("/workspace/f")).content).toBe("sandbox");
    expect((await sandbox.readFile("f", { sessionId: "s" })).content).toBe("session");
    expect((await session.readFile("f")).content).toBe("session");
    expect((await sandbox.exists("here", "s")).exists).toBe(false);
    expect((await sandbox.exists("../here", { sessionId: "s" })).exists).toBe(true);
  });

  test("X01 errors are typed and name the path", async ({ sandbox }) => {
    await sandbox.writeFile("/tmp/file", "x");
    for (const [ErrorClass, fields, call] of [
      [
        FileNotFoundError,
        { code: "FILE_NOT_FOUND", httpStatus: 404, path: "/no/file" },
        () => sandbox.readFile("/no/file"),
      ],
      [FileNotFoundError, { operation: "readFileContent" }, () => sandbox.readFile("/no/file", { encoding: "none" })],
      [FileNotFoundError, {}, () => sandbox.deleteFile("/no/file")],
      [FileNotFoundError, {}, () => sandbox.listFiles("/no/dir")],
      [IsDirectoryError, { code: "IS_DIRECTORY", httpStatus: 400, path: "/tmp" }, () => sandbox.deleteFile("/tmp")],
      [IsDirectoryError, {}, () => sandbox.readFile("/tmp")],
      [IsDirectoryError, {}, () => sandbox.writeFile("/tmp", "x")],
      [NotDirectoryError, { httpStatus: 400 }, () => sandbox.readFile("/tmp/file/below")],
      [NotDirectoryError, {}, () => sandbox.listFiles("/tmp/file")],
      [FileExistsError, { httpStatus: 409 }, () => sandbox.mkdir("/tmp")],
      [NameTooLongError, { httpStatus: 400 }, () => sandbox.writeFile("n".repeat(256), "x")],
      [ValidationFailedError, { httpStatus: 400 }, () => sandbox.readFile("")],
      [ValidationFailedError, { httpStatus: 400 }, () => sandbox.readFile("a\0b")],
      [ValidationFailedError, {}, () => sandbox.writeFile("/tmp/x", "x", { mode: 0o4755 })],
      [ValidationFailedError, {}, () => sandbox.writeFile("/tmp/x", "no base64!", { encoding: "base64" })],
      [ValidationFailedError, {}, () => sandbox.writeFile("/tmp/x", 1 as unknown as string)],
      [ValidationFailedError, {}, () => sandbox.readFile("/tmp/file", { encoding: "latin1" as "utf8" })],
    ] as const) {
      const error = await rejection(call());
      expect(error, String(error)).toBeInstanceOf(ErrorClass);
      expect(error).toMatchObject(fields);
    }
    expect((await sandbox.exists("/tmp/x")).exists).toBe(false);
  });
});

describe("readFileStream", () => {
  test("F01 gives metadata, pieces and the end; collectFile and streamFile read it", async ({ sandbox }) => {
    const text = "ünï 🦀 漢字\n".repeat(200_000);
    await sandbox.writeFile("/tmp/text.txt", text);
    const { content, metadata } = await collectFile(await sandbox.readFileStream("/tmp/text.txt"));
    expect(content === text).toBe(true);
    expect(metadata).toEqual({
      mimeType: "text/plain",
      size: Buffer.byteLength(text),
      isBinary: false,
      encoding: "utf-8",
    });

    const bytes = pattern(3_000_001);
    await sandbox.writeFile("/tmp/bytes", bytes);
    const session = await sandbox.createSession({ cwd: "/tmp" });
    const pieces: Uint8Array[] = [];
    for await (const piece of streamFile(await session.readFileStream("bytes"))) pieces.push(piece as Uint8Array);
    expect(Buffer.concat(pieces).equals(bytes)).toBe(true);
    expect(pieces.length).toBeGreaterThan(1);
  });

  test("X01 a file that is not there rejects before there is a stream", async ({ sandbox }) => {
    expect(await rejection(sandbox.readFileStream("/no/file"))).toBeInstanceOf(FileNotFoundError);
  });
});

describe("directories and names", () => {
  test("mkdir makes one directory, or with recursive all that lack", async ({ sandbox }) => {
    expect(await sandbox.mkdir("one")).toEqual({ success: true, path: "one", recursive: false, timestamp: ISO });
    expect(await rejection(sandbox.mkdir("a/b/c"))).toBeInstanceOf(FileNotFoundError);
    await sandbox.mkdir("a/b/c", { recursive: true, mode: 0o700 });
    await sandbox.mkdir("a/b/c", { recursive: true });
    expect((await sandbox.exec("stat -c %a one a/b/c")).stdout).toBe("755\n700");
  });

  test("renameFile and moveFile", async ({ sandbox }) => {
    await sandbox.writeFile("a", "content");
    expect(await sandbox.renameFile("a", "b")).toEqual({ success: true, path: "a", newPath: "b", timestamp: ISO });
    await sandbox.mkdir("dir");
    expect(await sandbox.moveFile("b", "dir")).toMatchObject({ success: true, path: "b" });
    expect((await sandbox.readFile("dir/b")).content).toBe("content");
    await sandbox.moveFile("dir/b", "/tmp/c");
    expect((await sandbox.readFile("/tmp/c")).content).toBe("content");
    expect((await sandbox.exists("dir/b")).exists).toBe(false);
    await sandbox.renameFile("/tmp/c", "/dev/shm/c");
    expect((await sandbox.readFile("/dev/shm/c")).content).toBe("content");
    expect(await rejection(sandbox.renameFile("/no/file", "x"))).toBeInstanceOf(FileNotFoundError);
  });

  test("deleteFile takes a link, not what it points to", async ({ sandbox }) => {
    await sandbox.exec("echo kept > /tmp/kept; ln -s kept /tmp/link; ln -s nowhere /tmp/dangling");
    expect(await sandbox.deleteFile("/tmp/link")).toEqual({ success: true, path: "/tmp/link", timestamp: ISO });
    await sandbox.deleteFile("/tmp/dangling");
    expect((await sandbox.exec("ls /tmp")).stdout).toBe("kept");
  });

  test("listFiles lists by name, hidden and deeper ones on request", async ({ sandbox }) => {
    await sandbox.exec(
      "mkdir -p /tmp/l/sub && cd /tmp/l && echo hello > b.txt && touch .hidden sub/deep && ln -s b.txt link && mkfifo pipe && chmod 640 b.txt",
    );
    const list = await sandbox.listFiles("/tmp/l");
    expect(list).toMatchObject({ success: true, path: "/tmp/l", count: 4, timestamp: ISO });
    expect(list.files.map(({ name, type }) => `${name}:${type}`)).toEqual([
      "b.txt:file",
      "link:symlink",
      "pipe:other",
      "sub:directory",
    ]);
    expect(list.files[0]).toEqual({
      name: "b.txt",
      absolutePath: "/tmp/l/b.txt",
      relativePath: "b.txt",
      type: "file",
      size: 6,
      modifiedAt: ISO,
      mode: "rw-r-----",
      permissions: { readable: true, writable: true, executable: false },
    });
    const all = await sandbox.listFiles("/tmp/l", { recursive: true, includeHidden: true });
    expect(all.files.map(({ relativePath }) => relativePath).sort()).toEqual([
      ".hidden",
      "b.txt",
      "link",
      "pipe",
      "sub",
      "sub/deep",
    ]);
  });

  test("exists tells, and follows links", async ({ sandbox }) => {
    await sandbox.exec("ln -s nowhere /tmp/dangling");
    expect(await sandbox.exists("/etc/passwd")).toEqual({
      success: true,
      path: "/etc/passwd",
      exists: true,
      timestamp: ISO,
    });
    expect((await sandbox.exists("/tmp")).exists).toBe(true);
    for (const path of ["/no", "/tmp/dangling", "/etc/passwd/x"])
      expect((await sandbox.exists(path)).exists, path).toBe(false);
  });
});

describe("F02 rights", () => {
  test("F02 nothing of the agent is reached through procfs, by any file method", async ({ sandbox }) => {
    for (const path of [
      "/proc/self/environ",
      "/proc/self/mem",
      "/proc/self/root/etc/passwd",
      "/proc/self/fd/0",
      "/proc/1/environ",
      "/proc/1/root/etc/passwd",
      "/proc/thread-self/environ",
    ]) {
      for (const call of [
        () => sandbox.readFile(path),
        () => sandbox.readFile(path, { encoding: "none" }),
        () => sandbox.readFileStream(path),
        () => sandbox.writeFile(path, "x"),
        () => sandbox.deleteFile(path),
        () => sandbox.renameFile(path, "/tmp/taken"),
        () => sandbox.moveFile(path, "/tmp/taken"),
      ]) {
        const error = await rejection(call());
        expect(error, `${path} ${call}`).toMatchObject({
          httpStatus: expect.toSatisfy((status: number) => status >= 400 && status < 500),
        });
      }
    }
    expect((await sandbox.exists("/tmp/taken")).exists).toBe(false);
    // The positive control: the same calls on a file of the user's.
    await sandbox.writeFile("/tmp/mine", "mine");
    expect((await sandbox.readFile("/tmp/mine")).content).toBe("mine");
  });

  test("F02 B01 links and dots resolve inside the sandbox's root", async ({ sandbox }) => {
    await sandbox.exec("ln -s ../../../../../../../../etc/hostname /tmp/out; ln -s /tmp/loop /tmp/loop");
    const inside = (await sandbox.exec("cat /etc/hostname", { stripFinalNewline: false })).stdout;
    expect((await sandbox.readFile("/tmp/out")).content).toBe(inside);
    expect((await sandbox.readFile("../../../../../../../etc/hostname")).content).toBe(inside);
    expect(await rejection(sandbox.readFile("/tmp/loop"))).toBeInstanceOf(PermissionDeniedError);
  });

  test("F01 B04 devices and FIFOs are refused at once", async ({ sandbox }) => {
    await sandbox.exec("mkfifo /tmp/fifo");
    for (const path of ["/tmp/fifo", "/dev/null", "/dev/zero"]) {
      expect(await rejection(sandbox.readFile(path)), path).toMatchObject({ httpStatus: 403 });
      expect(await rejection(sandbox.writeFile(path, "x")), path).toMatchObject({ httpStatus: 403 });
    }
  });
});
