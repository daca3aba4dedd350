import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect, createServer, type Server, type Socket } from "node:net";

/**
 * A TCP relay in front of the server that breaks connections: the network as it is on a bad day, with everything behind
 * it real.
 */
export class Cutter implements AsyncDisposable {
  /** Broken after so many bytes of the answer; each connection takes the next budget, without one it is left alone. */
  readonly budgets: number[] = [];
  /** Connections that were broken. */
  cuts = 0;
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  readonly #target: URL;

  private constructor(target: string) {
    this.#target = new URL(target);
    this.#server = createServer((socket) => this.#relay(socket));
  }

  static async start(target: string): Promise<Cutter> {
    const cutter = new Cutter(target);
    cutter.#server.listen(0, "127.0.0.1");
    await once(cutter.#server, "listening");
    return cutter;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Breaks every connection that is open now. */
  cutAll(): void {
    for (const socket of this.#sockets) {
      socket.destroy();
      this.cuts++;
    }
  }

  #relay(socket: Socket): void {
    const upstream = connect(Number(this.#target.port), this.#target.hostname);
    let budget = this.budgets.shift() ?? Number.POSITIVE_INFINITY;
    this.#sockets.add(socket);
    const end = () => {
      this.#sockets.delete(socket);
      socket.destroy();
      upstream.destroy();
    };
    for (const side of [socket, upstream]) side.on("close", end).on("error", end);
    socket.pipe(upstream);
    upstream.on("data", (bytes: Buffer) => {
      budget -= bytes.length;
      if (budget > 0) return void socket.write(bytes);
      this.cuts++;
      // What is within the budget still arrives, then the connection breaks in the midst.
      socket.write(bytes.subarray(0, Math.max(0, bytes.length + budget)), end);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }
}
