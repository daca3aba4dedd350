// Classes and functions of Cloudflare's SDK that have nothing to stand for here. They exist so that a bundler finds every
// name that a program imports; docs/FROM_CLOUDFLARE.md says of each why it is not here. Whoever uses one is told.
import { NotSupportedError } from "./errors.js";
import type { PtyOptions } from "./original-types.js";

/** Speaks the protocol of Cloudflare's own container, which no sandbox here has. */
abstract class ContainerClient {
  constructor(..._args: unknown[]) {
    throw new NotSupportedError(new.target.name, "Use the methods of the sandbox: they do the same.");
  }
}

/** Not supported: see the methods of `Sandbox`. */
export class BackupClient extends ContainerClient {}

/** Not supported: see the methods of `Sandbox`. */
export class CommandClient extends ContainerClient {}

/** Not supported: see the methods of `Sandbox`. */
export class FileClient extends ContainerClient {}

/** Not supported: see the methods of `Sandbox`. */
export class GitClient extends ContainerClient {}

/** Not supported: see the methods of `Sandbox`. */
export class PortClient extends ContainerClient {}

/** Not supported: see the methods of `Sandbox`. */
export class ProcessClient extends ContainerClient {}

/** Not supported: see the methods of `Sandbox`. */
export class UtilityClient extends ContainerClient {}

/** Not supported: see the methods of `Sandbox`. */
export class SandboxClient extends ContainerClient {}

/** A Worker may export it as it did; nothing calls it: requests out of a sandbox never come through a Worker. */
export class ContainerProxy {
  /** Not supported. */
  async fetch(_request: Request): Promise<Response> {
    throw new NotSupportedError("ContainerProxy", "Remove the export: no sandbox here is a container of the Worker's.");
  }
}

/** Not supported: there are no terminals yet. `startProcess` with `stdin: "pipe"` and `attach` carry a dialogue. */
export async function proxyTerminal(
  _sandbox: { fetch: (request: Request) => Promise<Response> },
  _sessionId: string,
  _request: Request,
  _options?: PtyOptions,
): Promise<Response> {
  throw new NotSupportedError("proxyTerminal", 'Use startProcess with stdin: "pipe", and attach.');
}
