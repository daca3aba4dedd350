import { textOf } from "./check.js";
import { invalidField, SandboxSecurityError } from "./errors.js";

const RESERVED = new Set(["www", "api", "admin", "root", "system"]);

/**
 * The rule of sandbox ids, the same as the server's: 1-63 printable ASCII characters without blanks, `/` and `%`, no
 * leading or trailing `-`, not `.` or `..` (URLs are normalised before they are sent), none of the reserved words.
 *
 * @returns what is wrong with `id`, or undefined.
 */
function faultOfSandboxId(id: string): string | undefined {
  if (id.length < 1 || id.length > 63) return "must have 1 to 63 characters";
  if (!/^[!-~]+$/.test(id) || /[/%]/.test(id)) return "must be printable ASCII without blanks, '/' and '%'";
  if (id.startsWith("-") || id.endsWith("-")) return "must not begin or end with '-'";
  if (id === "." || id === "..") return "must not be '.' or '..'";
  if (RESERVED.has(id.toLowerCase())) return `is one of the reserved words ${[...RESERVED].join(", ")}`;
  return undefined;
}

/**
 * Checks a sandbox's id before it becomes part of a URL.
 *
 * @throws SandboxSecurityError that names the rule which is broken.
 */
export function checkSandboxId(id: string, normalize = false): string {
  const fault = typeof id === "string" ? faultOfSandboxId(id) : "must be a string";
  if (fault !== undefined) {
    // A refused id may be anything a stranger sent: quote only as much as a person would read.
    throw new SandboxSecurityError(`sandbox id ${JSON.stringify(String(id).slice(0, 80))}: ${fault}`, fault);
  }
  return normalize ? id.toLowerCase() : id;
}

/**
 * Checks a session's id before it becomes part of a URL: 1-128 bytes of UTF-8 without control characters and `/`, not
 * `.` or `..`.
 *
 * @throws ValidationFailedError that names the field.
 */
export function checkSessionId(id: string): string {
  const invalid = (fault: string): never => {
    throw invalidField("sessionId", fault);
  };
  if (typeof id !== "string") return invalid("must be a string");
  if (id.length < 1 || new TextEncoder().encode(id).length > 128) return invalid("must have 1 to 128 bytes");
  if (/\p{Surrogate}/u.test(id)) return invalid("must be Unicode text: it holds half of a surrogate pair");
  if (id === "." || id === ".." || /[/\u0000-\u001f\u007f-\u009f]/.test(id)) {
    return invalid("must not hold '/' or control characters, nor be '.' or '..'");
  }
  return id;
}

/**
 * An id as one part of a path. Empty, `.` and `..` would name another resource once the URL is normalised.
 *
 * @throws ValidationFailedError that names the field.
 */
export function segment(field: string, id: string): string {
  const text = textOf(field, id);
  if (text === "" || text === "." || text === "..")
    throw invalidField(field, `${JSON.stringify(text)} cannot be an id`);
  return encodeURIComponent(text);
}

/**
 * A name for one command that no other command has, so that a retry after a lost connection attaches to the command
 * instead of running it again. It need not be secret.
 */
export function newExecId(): string {
  const crypto = globalThis.crypto as Crypto | undefined;
  if (crypto?.randomUUID) return crypto.randomUUID();
  // Pages without TLS have no randomUUID, Node 18 has no global crypto.
  const words = crypto ? crypto.getRandomValues(new Uint32Array(4)) : Array.from({ length: 4 }, randomWord);
  return Array.from(words, (word) => word.toString(16).padStart(8, "0")).join("-");
}

function randomWord(): number {
  return Math.floor(Math.random() * 2 ** 32);
}
