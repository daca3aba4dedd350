import { invalidField } from "./errors.js";

/** The longest time that the server takes: a week. */
const LONGEST_MS = 604_800_000;

/**
 * What is sent as JSON. JavaScript would drop what JSON does not have, or write null for it: the caller hears of it.
 *
 * @throws ValidationFailedError that names the field.
 */
export function jsonOf(value: unknown): string {
  return JSON.stringify(value, (field, part: unknown) => {
    if (typeof part === "number" && !Number.isFinite(part))
      throw invalidField(field, `must be a finite number: it is ${part}`);
    if (typeof part === "bigint" || typeof part === "symbol" || typeof part === "function") {
      throw invalidField(field, `cannot be sent: it is a ${typeof part}`);
    }
    return part;
  });
}

/**
 * The options of a call, which may be left out or null.
 *
 * @throws ValidationFailedError if they are no object, a callback is no function or the signal is none.
 */
export function optionsOf<Options extends object>(options: Options | null | undefined): Options {
  if (options === undefined || options === null) return {} as Options;
  if (typeof options !== "object") throw invalidField("options", `must be an object: it is a ${typeof options}`);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue;
    if (/^on[A-Z]/.test(name) && typeof value !== "function") throw invalidField(name, "must be a function");
    if (name === "signal" && !(typeof value === "object" && "addEventListener" in value && "aborted" in value)) {
      throw invalidField(name, "must be an AbortSignal");
    }
  }
  return options;
}

/** @throws ValidationFailedError if it is no text that can be a part of a URL. */
export function textOf(field: string, value: string): string {
  if (typeof value !== "string") throw invalidField(field, `must be a string: it is ${kindOf(value)}`);
  if (/\p{Surrogate}/u.test(value))
    throw invalidField(field, "must be Unicode text: it holds half of a surrogate pair");
  return value;
}

/** @throws ValidationFailedError if it is no time in milliseconds. */
export function millisecondsOf(field: string, value: number | undefined): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (!Number.isInteger(value) || value < 1 || value > LONGEST_MS) {
    throw invalidField(field, `must be 1 to ${LONGEST_MS} milliseconds: it is ${String(value)}`);
  }
  return value;
}

function kindOf(value: unknown): string {
  return value === null || value === undefined ? String(value) : `a ${typeof value}`;
}
