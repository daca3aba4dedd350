import { request } from "node:http";
import { inject } from "vitest";

/** What a visitor of a preview gets: Node resolves no name below localhost, so the address is the server's. */
export function visit(url: string, path: string): Promise<{ status: number | undefined; body: string }> {
  const { port } = new URL(inject("url"));
  return new Promise((resolve, reject) => {
    const call = request({ host: "127.0.0.1", port, path, headers: { host: new URL(url).host } }, async (answer) => {
      let body = "";
      for await (const part of answer) body += part;
      resolve({ status: answer.statusCode, body });
    });
    call.on("error", reject).end();
  });
}
