import type { ErrorFacts } from "./sandbox-error.js";

/** A preview's host: `{port}-{id}-{token}`, split at the first and the last hyphen, below some domain. */
const PREVIEW = /^([1-9][0-9]{3,4})-[a-z0-9](?:[a-z0-9-]*[a-z0-9])?-[^-.]+\../;

/** Whether a host, without its port, has the form of a preview's. */
export function isPreviewHost(hostname: string): boolean {
  const port = Number(PREVIEW.exec(hostname.toLowerCase())?.[1]);
  return port >= 1024 && port <= 65535;
}

/** Headers of one connection (RFC 9110, section 7.6.1), beside those that its `Connection` names. */
const ONE_HOP = ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

/** The headers, in lower case, that end with the connection they came by. `connection` is what its `Connection` says. */
export function oneHop(connection: string | null | undefined): string[] {
  const named = (connection ?? "").split(",").map((name) => name.trim().toLowerCase());
  return [...ONE_HOP, ...named.filter((name) => name !== "")];
}

/** What a visitor is told whose request could not be passed on. */
export function noAnswer(message: string, suggestion: string): ErrorFacts {
  const timestamp = new Date().toISOString();
  return {
    code: "SERVICE_NOT_RESPONDING",
    message,
    operation: "preview",
    context: {},
    httpStatus: 502,
    timestamp,
    suggestion,
  };
}

/** What is to know of a `Connection`, by form: another entry of the package has its own copy of the class's type. */
export interface PreviewServer {
  /** @internal */
  readonly transport: { readonly url: string; readonly ownKey: string };
}
