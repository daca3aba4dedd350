import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

/** Serves the built package as a browser loads it: `/` is an empty page, `/sandcrab.js` the ES module. */
export async function servePage(): Promise<{ origin: string; stop: () => Promise<void> }> {
  const module = await readFile(new URL("../../dist/index.js", import.meta.url));
  const server: Server = createServer((request, response) => {
    if (request.url === "/sandcrab.js") response.writeHead(200, { "content-type": "text/javascript" }).end(module);
    else if (request.url === "/")
      response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>t</title>");
    else response.writeHead(404).end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
