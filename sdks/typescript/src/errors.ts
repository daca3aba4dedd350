import {
  BucketMountError,
  ERROR_CLASSES,
  type ErrorCode,
  ServiceNotRespondingError,
  ValidationFailedError,
} from "./generated/errors.js";
import type { Answer } from "./node-http.js";
import type { RPCTransportErrorKind } from "./original-types.js";
import { type ErrorFacts, SandboxError } from "./sandbox-error.js";

export * from "./generated/errors.js";
export { type ErrorFacts, SandboxError } from "./sandbox-error.js";

/** Bad input that this package found itself: 400 that names the field. */
export function invalidField(field: string, fault: string): ValidationFailedError {
  return new ValidationFailedError(invalidFacts(field, `${field}: ${fault}`, fault));
}

function invalidFacts(field: string, message: string, fault: string): ErrorFacts<ValidationFailedError["context"]> {
  return {
    code: "VALIDATION_FAILED",
    message,
    context: { validationErrors: [{ field, message: fault }] },
    httpStatus: 400,
    timestamp: new Date().toISOString(),
    suggestion: "Mend the fields named in context.validationErrors.",
  };
}

/** A sandbox's id that breaks its rule: refused before any request. */
export class SandboxSecurityError extends ValidationFailedError {
  override name = "SandboxSecurityError";

  constructor(message: string, fault: string) {
    super(invalidFacts("id", message, fault));
  }
}

/** The parent of `ConnectionError`, by the name that Cloudflare's SDK has for it. */
export class RPCTransportError extends ServiceNotRespondingError {
  override name = "RPCTransportError";

  /** What kind of fault it is; here always `connection_failed`. */
  get kind(): RPCTransportErrorKind {
    return (this.context.kind as RPCTransportErrorKind | undefined) ?? "unknown";
  }
  /** What the platform said. */
  get originalMessage(): string {
    return String(this.context.originalMessage ?? this.message);
  }
}

/** The server could not be reached, or the connection to it broke before the answer was whole. */
export class ConnectionError extends RPCTransportError {
  constructor(operation: string, url: string, cause: unknown) {
    const reason = reasonOf(cause);
    super(
      {
        code: "SERVICE_NOT_RESPONDING",
        message: `${operation}: no answer from ${url}: ${reason}`,
        operation,
        context: {
          url,
          reason,
          kind: "connection_failed",
          originalMessage: reason,
          errorName: cause instanceof Error ? cause.name : "Error",
        },
        httpStatus: 502,
        timestamp: new Date().toISOString(),
        suggestion: "Check that `sandcrab serve` runs there and that the network lets this program reach it.",
      },
      { cause },
    );
  }
}

/** Of Cloudflare's SDK; nothing here throws it: there are no bucket mounts yet. */
export class S3FSMountError extends BucketMountError {
  override name = "S3FSMountError";
}

/** Of Cloudflare's SDK; nothing here throws it: there are no bucket mounts yet. */
export class BucketUnmountError extends BucketMountError {
  override name = "BucketUnmountError";
}

/** Something that Cloudflare's SDK has, and this package not (yet). */
export class NotSupportedError extends SandboxError<{ feature: string }> {
  override name = "NotSupportedError";

  constructor(feature: string, suggestion: string) {
    super({
      code: "NOT_SUPPORTED",
      message: `${feature} is not supported by Sandcrab`,
      context: { feature },
      httpStatus: 501,
      timestamp: new Date().toISOString(),
      suggestion,
    });
  }
}

/** `fetch` hides the reason of a failure in its cause. */
function reasonOf(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  if (!(inner instanceof Error)) return String(inner);
  return inner.message || (inner as { code?: string }).code || inner.name;
}

/** The error that an answer of the API stands for, as an instance of its code's class. */
export function errorOf(facts: WireFacts): SandboxError {
  // A code may be any word, those of Object's own properties too.
  const known = Object.hasOwn(ERROR_CLASSES, facts.code);
  const ErrorClass = known ? ERROR_CLASSES[facts.code as ErrorCode] : SandboxError;
  return new ErrorClass({ ...facts, context: facts.context ?? {} });
}

type WireFacts = Omit<ErrorFacts, "context"> & { context?: Record<string, unknown> };

/** Whether `value` has the shape of the API's errors. */
function isErrorFacts(value: unknown): value is WireFacts {
  if (typeof value !== "object" || value === null) return false;
  const { code, message, httpStatus } = value as Partial<ErrorFacts>;
  return typeof code === "string" && typeof message === "string" && typeof httpStatus === "number";
}

/** The error for an answer that is none of the API's, such as a proxy's own page. */
export async function errorOfResponse(response: Answer, operation: string): Promise<SandboxError> {
  const text = await response.text().catch(() => "");
  const facts = parseFacts(text);
  if (facts) return errorOf({ ...facts, operation: facts.operation ?? operation });
  return foreignAnswer(response, operation, text);
}

/** The error for an answer that Sandcrab cannot have written. */
export function foreignAnswer(response: Answer, operation: string, text: string): ServiceNotRespondingError {
  return new ServiceNotRespondingError({
    code: "SERVICE_NOT_RESPONDING",
    message: `${operation}: ${response.url} answered ${response.status} with something that is not Sandcrab's`,
    operation,
    context: { url: response.url, status: response.status, body: text.slice(0, 200) },
    httpStatus: 502,
    timestamp: new Date().toISOString(),
    suggestion: "Check the url given to connect(), and any proxy on the way.",
  });
}

/** The error for an answer that leads elsewhere. */
export function redirected(
  url: string,
  status: number,
  location: string | null | undefined,
  operation: string,
): ServiceNotRespondingError {
  const to = location ? ` to ${location.slice(0, 200)}` : "";
  return new ServiceNotRespondingError({
    code: "SERVICE_NOT_RESPONDING",
    message: `${operation}: ${url} redirects${to}; redirects are not followed`,
    operation,
    context: { url, status, location: location ?? undefined },
    httpStatus: 502,
    timestamp: new Date().toISOString(),
    suggestion: "Give connect() the url at which Sandcrab itself answers.",
  });
}

function parseFacts(text: string): WireFacts | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isErrorFacts(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
