// A site such as people run in a sandbox: `node site.mjs PORT`. Written out by hand where a library would hide what is tried.
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { brotliCompressSync, gzipSync } from "node:zlib";

const TEXT = "a text that is worth compressing, ".repeat(1000);

const routes = {
  /** What came, as JSON. */
  "/seen": (request, response) => {
    const { method, url, headers } = request;
    response.setHeader("content-type", "application/json").end(JSON.stringify({ method, url, headers }));
  },
  /** The body as it comes, piece by piece. */
  "/echo": (request, response) => {
    response.writeHead(201, { "x-length": request.headers["content-length"] ?? "none" });
    response.flushHeaders();
    request.pipe(response);
  },
  "/gzip": (_, response) => encoded(response, "gzip", gzipSync(TEXT)),
  "/br": (_, response) => encoded(response, "br", brotliCompressSync(TEXT)),
  "/login": (_, response) => {
    response.writeHead(302, { location: "/home", "set-cookie": ["a=1; Path=/", "b=2; HttpOnly"] }).end("go");
  },
  "/nothing": (_, response) => response.writeHead(204).end(),
  /** Never ends; `/left` tells when its reader has gone. */
  "/endless": (request, response) => {
    request.on("close", () => left.resolve());
    response.writeHead(200, { "content-type": "text/event-stream" }).write("data: tick\n\n");
  },
  "/left": async (_, response) => {
    await left.promise;
    response.end("left");
  },
};

const left = {};
left.promise = new Promise((resolve) => {
  left.resolve = resolve;
});

function encoded(response, encoding, body) {
  response.writeHead(200, { "content-encoding": encoding, "content-length": body.length, etag: '"v1"' }).end(body);
}

const server = createServer((request, response) => {
  const route = routes[new URL(request.url, "http://site").pathname];
  if (route) route(request, response);
  else response.writeHead(404).end("nothing here");
});

// Says hello together with the agreement, then sends back what it gets; the text `bye` closes it.
server.on("upgrade", (request, socket, head) => {
  const { pathname } = new URL(request.url, "http://site");
  if (pathname !== "/live") return void socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
  const hash = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`);
  const protocol = request.headers["sec-websocket-protocol"]?.split(",").at(-1).trim();
  socket.write(
    [
      "HTTP/1.1 101 Switching Protocols",
      "Upgrade: websocket",
      "Connection: Upgrade",
      `Sec-WebSocket-Accept: ${hash.digest("base64")}`,
      ...(protocol ? [`Sec-WebSocket-Protocol: ${protocol}`] : []),
      "\r\n",
    ].join("\r\n"),
  );
  const { cookie, host } = request.headers;
  socket.write(frame(1, Buffer.from(JSON.stringify({ hello: request.url, cookie, host }))));
  let bytes = head;
  let closing = false;
  const read = (more) => {
    bytes = Buffer.concat([bytes, more]);
    for (let taken = take(bytes); taken; taken = take(bytes)) {
      bytes = taken.rest;
      if (taken.opcode === 8) return void socket.end(closing ? undefined : frame(8, taken.data));
      closing = taken.data.equals(Buffer.from("bye"));
      if (closing) socket.write(frame(8, Buffer.from([0x0f, 0xa1, ...Buffer.from("so long")])));
      else socket.write(frame(taken.opcode, taken.data));
    }
  };
  socket.on("data", read).on("error", () => {});
  read(Buffer.alloc(0));
});

/** A frame of RFC 6455, section 5.2, of fewer than 2^16 bytes. */
function frame(opcode, data) {
  const long = data.length > 125;
  const head = Buffer.from([
    0x80 | opcode,
    long ? 126 : data.length,
    ...(long ? [data.length >> 8, data.length & 255] : []),
  ]);
  return Buffer.concat([head, data]);
}

/** The first masked frame of these bytes, if it is whole. */
function take(bytes) {
  if (bytes.length < 2) return undefined;
  const short = bytes[1] & 127;
  const at = short === 126 ? 4 : 2;
  if (bytes.length < at) return undefined;
  const end = at + 4 + (short === 126 ? bytes.readUInt16BE(2) : short);
  if (bytes.length < end) return undefined;
  const data = bytes.subarray(at + 4, end).map((byte, index) => byte ^ bytes[at + (index & 3)]);
  return { opcode: bytes[0] & 15, data: Buffer.from(data), rest: bytes.subarray(end) };
}

server.listen(Number(process.argv[2]), "127.0.0.1");
