// Runs the code of one context: a Node process of its own that keeps what each run leaves behind.
//
// The agent talks to it over the pipes `orders` and `answers` in frames: four bytes of length, little-endian, then JSON. stdout and
// stderr belong to the code that runs; nothing of the protocol is ever written there. Each cell is evaluated as V8's own
// consoles do it (`replMode`): the last expression's value is the cell's, `await` is allowed, and what another cell
// declared may be declared again.
"use strict";
const fs = require("node:fs");
const inspector = require("node:inspector");
const net = require("node:net");
const path = require("node:path");
const url = require("node:url");
const util = require("node:util");
const vm = require("node:vm");
const nodeModule = require("node:module");
const { Worker } = require("node:worker_threads");

// The longest frame that the agent takes, in bytes; each run says it anew.
let maxMessage = 8 << 20;
// Bounds on one result, in characters.
const MAX_TEXT = 1 << 20;
const MAX_FORMAT = 6 << 20;
const MAX_TRACEBACK_LINES = 200;
const MAX_LINE = 2000;
/** How long the main thread has to end a run that is interrupted before its code is ended from outside. */
const GRACE_MS = 100;
/** How long what an interrupted run has left behind may hold up the next one. */
const BEGIN_MS = 500;
/** A context that is asked for at once has its first request by then. */
const REHEARSAL_MS = 20;

const typescript = language === "typescript";

const FORMATS = {
  __proto__: null,
  "text/plain": "text",
  "text/html": "html",
  "image/png": "png",
  "image/jpeg": "jpeg",
  "image/svg+xml": "svg",
  "text/latex": "latex",
  "text/markdown": "markdown",
  "application/javascript": "javascript",
  "application/json": "json",
};

// Held from the start: code may replace the globals.
const { parse, stringify } = JSON;
const { env, stdout, stderr } = process;
const toText = Error.prototype.toString;
const inspect = util.inspect;

const session = new inspector.Session();
session.connect();

/** What the agent has sent and not been read yet. */
let received = Buffer.alloc(0);
/** The id of the run that is on. */
let current;
/** Whether code has ever been run here. */
let begun = false;
/** Why no code can be run here. */
let unusable;
/** Ends the waiting for a run's asynchronous part. */
let interruptWaiting;
let loadedParser;

const from = new net.Socket({ fd: orders, readable: true, writable: false });
const to = new net.Socket({ fd: answers, readable: false, writable: true });
for (const pipe of [from, to]) pipe.on("error", () => process.reallyExit(70));
// The agent has let go of this context.
from.on("end", () => process.reallyExit(0));
from.on("data", (bytes) => {
  received = received.length === 0 ? bytes : Buffer.concat([received, bytes]);
  while (received.length >= 4) {
    const end = 4 + received.readUInt32LE(0);
    if (received.length < end) return;
    const request = parse(received.toString("utf8", 4, end));
    received = received.subarray(end);
    if (request.type === "setup") setUp(request);
    else run(request).catch(broken);
  }
});

/** Sends messages; what fits the pipe is on its way when this returns. */
function send(...messages) {
  const frames = [];
  for (const message of messages) {
    const text = fitting(message);
    const head = Buffer.alloc(4);
    head.writeUInt32LE(text.length);
    frames.push(head, text);
  }
  to.write(Buffer.concat(frames));
}

/** A message as JSON, without what is too long for a frame: characters may take six bytes each. */
function fitting(message) {
  let text = Buffer.from(wellFormed(stringify(message)));
  while (text.length > maxMessage) {
    const { result } = message;
    let largest;
    for (const name of Object.keys(result)) {
      const size = name === "text" || name === "omitted" ? 0 : sizeOf(result[name]);
      if (size > 0 && !(size <= largest?.size)) largest = { name, size };
    }
    if (largest) {
      delete result[largest.name];
      result.omitted = { ...result.omitted, [largest.name]: largest.size };
    } else result.text = shortened(result.text, result.text.length >> 3);
    text = Buffer.from(wellFormed(stringify(message)));
  }
  return text;
}

/** Half of a surrogate pair is no character: JSON as others read it cannot carry it. */
function wellFormed(json) {
  return json.includes("\\ud") ? json.replace(/\\(?:\\|ud[89a-f][0-9a-f]{2})/g, (found) => (found === "\\\\" ? found : "\ufffd")) : json;
}

/** The text with what is too much of it counted, also where it was shortened before. */
function shortened(text, most) {
  if (text.length <= most) return text;
  const before = /… \[(\d+) more characters\]$/.exec(text.slice(-40));
  const hidden = before ? Number(before[1]) - before[0].length : 0;
  return `${text.slice(0, most)}… [${text.length - most + hidden} more characters]`;
}

/** Becomes the executor of a context: takes its environment, working directory and language. */
function setUp(request) {
  for (const name of Object.keys(env)) if (!(name in request.env)) delete env[name];
  Object.assign(env, request.env);
  try {
    process.chdir(request.cwd);
  } catch (error) {
    unusable = error;
  }
}

/** Sets and unsets variables; returns what they were. */
function change(variables) {
  const before = {};
  for (const name of Object.keys(variables)) {
    before[name] = env[name] ?? null;
    if (variables[name] === null) delete env[name];
    else env[name] = variables[name];
  }
  return before;
}

/** Sets the sandbox's and the session's variables, where they still stand as they were last given. */
function deliver(changes) {
  for (const [name, value, ...expected] of changes) {
    if (expected.length === 0 || (env[name] ?? null) === expected[0]) change({ [name]: value });
  }
}

async function run(request) {
  begun = true;
  current = request.id;
  maxMessage = request.most;
  note(ON, request.count);
  // From the first run on, code can be interrupted.
  if (!watched) await watching;
  deliver(request.env);
  const before = change(request.once);
  const messages = [];
  let error = null;
  const name = `cell-${request.count}`;
  try {
    if (unusable) throw unusable;
    if (doomed === request.count) throw new Interrupted();
    if (request.cwd !== undefined) process.chdir(request.cwd);
    const value = await evaluate(request.code, name);
    if (value !== undefined) messages.push(isPrimitive(value) ? resultOf(value) : protect(() => resultOf(value)));
  } catch (thrown) {
    error = protect(() => describe(thrown, name));
  }
  change(before);
  // What a stream still holds is a part of this run.
  if (stdout.writableLength > 0) await drained(stdout);
  if (stderr.writableLength > 0) await drained(stderr);
  const done = { type: "done", id: current, error };
  current = undefined;
  send(...messages, done);
}

/** The code has changed something that this program cannot do without. */
function broken(error) {
  try {
    const text = `what shows results and errors fails: ${error?.message}`;
    send({ type: "done", id: current, error: { name: "Error", value: text, traceback: [text], line: null } });
  } catch {
    process.reallyExit(70);
  }
}

function drained(stream) {
  return new Promise((done) => (stream.destroyed ? done() : stream.write("", () => done())));
}

class Interrupted extends Error {}
Interrupted.prototype.name = "KeyboardInterrupt";

/** What the two functions that scripts can reach do at this moment. */
const within = { work: undefined, take: undefined };
const script = new vm.Script("__sandcrab.work()", { filename: "sandcrab:run" });

/**
 * Runs code of the user's so that an interrupt ends it, also in a loop without end. Where the watchdog is up the inspector
 * must stand between that code and this program, which would be ended with it else.
 */
function protect(work) {
  let outcome;
  within.work = () => {
    try {
      outcome = { value: work() };
    } catch (error) {
      outcome = { error };
    }
  };
  if (watched) session.post("Runtime.evaluate", { expression: "__sandcrab.work()", silent: true });
  else unwatched(() => script.runInThisContext({ breakOnSigint: true }));
  if (!outcome) throw new Interrupted();
  if ("error" in outcome) throw outcome.error;
  return outcome.value;
}

function unwatched(work) {
  try {
    return work();
  } catch (error) {
    throw error?.code === "ERR_SCRIPT_EXECUTION_INTERRUPTED" ? new Interrupted() : error;
  }
}

/** Shared with the watchdog: the number of the run that is on, and of the last interrupt that this thread has heard of. */
const shared = new Int32Array(new SharedArrayBuffer(8));
const ON = 0;
const HEARD = 1;
let watched = false;
/** The number of a run whose interrupt came before itself. */
let doomed = 0;

function note(cell, value) {
  Atomics.store(shared, cell, value);
  Atomics.notify(shared, cell);
}

/**
 * Starts a thread that ends code which keeps this one from hearing of an interrupt, or, after an interrupt, from beginning
 * the next run: what was given up may go on. The agent writes to descriptor `interrupts` the number of a run that is to
 * end, or, negative, of one that is to begin.
 */
function watch() {
  const source = `
    const { workerData: { interrupts, shared }, parentPort } = require("node:worker_threads");
    const session = new (require("node:inspector").Session)();
    session.connectToMainThread();
    const becomes = (cell, wanted, within) => {
      const deadline = Date.now() + within;
      for (;;) {
        const value = Atomics.load(shared, cell);
        const left = deadline - Date.now();
        if (value >= wanted || left <= 0) return value >= wanted;
        Atomics.wait(shared, cell, value, left);
      }
    };
    const socket = new (require("node:net").Socket)({ fd: interrupts, readable: true, writable: false });
    socket.on("data", (bytes) => {
      for (let at = 0; at + 4 <= bytes.length; at += 4) {
        const run = bytes.readInt32LE(at);
        if (run > 0) parentPort.postMessage(run);
        const obeyed = run > 0 ? becomes(${HEARD}, run, ${GRACE_MS}) : becomes(${ON}, -run, ${BEGIN_MS});
        if (!obeyed) session.post("Runtime.terminateExecution", () => {});
      }
    });
    parentPort.postMessage(0);`;
  return new Promise((up) => {
    const worker = new Worker(source, { eval: true, workerData: { interrupts, shared }, env: {}, argv: [], execArgv: [] });
    worker.on("message", (run) => {
      if (run === 0) {
        watched = true;
        return up();
      }
      note(HEARD, run);
      if (run > shared[ON]) doomed = run;
      else if (run === shared[ON]) interruptWaiting?.();
    });
    // Without the thread (none can be made) an interrupt reaches only code that does not wait.
    worker.on("error", () => {
      watched = false;
      up();
    });
    worker.unref();
  });
}

/** A cell's value; rejects with what it throws. */
async function evaluate(code, name) {
  const text = translated(code);
  let value;
  try {
    value = await evaluatePart(text, name);
  } catch (error) {
    if (declaredBefore(error) === undefined) throw error;
    // What is declared twice in one cell is what it would be in two.
    for (const part of parser().splitAtRedeclarations(text)) value = await evaluateAgain(part, name);
  }
  // As of a cell whose last expression is a promise: its value is what counts.
  return value !== null && typeof value === "object" && typeof value.then === "function" ? waitFor(value) : value;
}

/** Evaluates what may declare names that another cell declared in another way. */
async function evaluateAgain(part, name) {
  for (let text = part; ; ) {
    try {
      return await evaluatePart(text, name);
    } catch (error) {
      const declared = declaredBefore(error);
      const next = declared === undefined ? undefined : parser().redeclare(text, declared);
      if (next === undefined || next.length > 2 * part.length + MAX_LINE) throw error;
      text = next;
    }
  }
}

/** The name that V8 refuses to declare again; it has not run any of the code then. */
function declaredBefore(error) {
  const cause = error instanceof Syntax ? error.cause : error instanceof Thrown ? error.value : undefined;
  return cause instanceof SyntaxError ? /^Identifier '(.+)' has already been declared$/.exec(cause.message)?.[1] : undefined;
}

/** The code does not compile. */
class Syntax {
  constructor(cause, line) {
    this.cause = cause;
    this.line = line;
  }
}

function evaluatePart(text, name) {
  const pending = new Promise((resolve, reject) => {
    const expression = `${text}\n//# sourceURL=${name}`;
    const settle = (failure, answer) => {
      // "Execution was terminated": nothing else fails here.
      if (failure) return reject(new Interrupted());
      const { result, exceptionDetails: details } = answer;
      if (!details) return resolve(local(result));
      const thrown = local(details.exception ?? result);
      const compiled = details.stackTrace === undefined && thrown instanceof SyntaxError && !String(thrown.stack).includes(`${name}:`);
      reject(compiled ? new Syntax(thrown, details.lineNumber + 1) : new Thrown(thrown));
    };
    const options = { expression, replMode: true, awaitPromise: true, silent: true };
    if (watched) session.post("Runtime.evaluate", options, settle);
    else {
      within.work = () => session.post("Runtime.evaluate", options, settle);
      try {
        unwatched(() => script.runInThisContext({ breakOnSigint: true }));
      } catch (error) {
        reject(error);
      }
    }
  });
  return waitFor(pending);
}

/** What code threw, which may be anything. */
class Thrown {
  constructor(value) {
    this.value = value;
  }
}

/** A promise's value, unless an interrupt comes first: then the promise is left to itself. */
function waitFor(promise) {
  let interrupt;
  // While code is waited for, only what the code has begun keeps this process; its end is heard of as `beforeExit`.
  from.unref();
  return new Promise((resolve, reject) => {
    interrupt = interruptWaiting = (why = new Interrupted()) => reject(why);
    promise.then(resolve, (error) => reject(error instanceof Thrown || error instanceof Syntax || error instanceof Interrupted ? error : new Thrown(error)));
  }).finally(() => {
    from.ref();
    if (interruptWaiting === interrupt) interruptWaiting = undefined;
  });
}
// Whoever asks a stdin that has ended would wait for ever. Everything else that nothing can settle is left to its timeout,
// as a way to wait for that.
process.on("beforeExit", () => {
  from.ref();
  if (process.stdin.readableEnded || process.stdin.destroyed) {
    interruptWaiting?.(new Thrown(new Error("stdin has ended, and nothing is left that could settle what is awaited")));
  }
});
process.on("SIGINT", () => {
  if (!watched) interruptWaiting?.();
});

/** The value itself that V8 speaks of. */
function local(remote) {
  if ("value" in remote && remote.objectId === undefined) return remote.value;
  if (remote.unserializableValue !== undefined) {
    const text = remote.unserializableValue;
    return text.endsWith("n") && text !== "NaN" ? BigInt(text.slice(0, -1)) : Number(text);
  }
  if (remote.objectId === undefined) return undefined;
  let value;
  within.take = (taken) => {
    value = taken;
  };
  const { objectId } = remote;
  session.post("Runtime.callFunctionOn", {
    objectId,
    functionDeclaration: "function (value) { globalThis.__sandcrab.take(value) }",
    arguments: [{ objectId }],
    silent: true,
  });
  session.post("Runtime.releaseObject", { objectId });
  return value;
}

// --- What V8 does not take as it is: TypeScript, `import`, names declared twice in one cell.

function parser() {
  loadedParser ??= vm.compileFunction(parserSource(), [], { filename: "sandcrab:parser" })();
  return loadedParser;
}

/** The text that V8 is given for a cell: line for line the same. */
function translated(code) {
  try {
    let text = typescript ? parser().stripTypes(code) : code;
    if (/\bexport\b/.test(text)) text = parser().rewriteExports(text);
    if (/\bimport\b/.test(text)) text = parser().rewriteImports(text);
    if (/\bconst\b/.test(text)) text = parser().relaxConstants(text);
    return text;
  } catch (error) {
    // What no parser understands is V8's to refuse, in its own words, unless it is TypeScript.
    if (!typescript) return code;
    throw new Syntax(new SyntaxError(error.message), error.loc?.line ?? null);
  }
}

const DEFAULT_LOADER = vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER;
/** `import()` and `require` by the working directory that they resolve from. */
const loaders = new Map();

/** Without the warning that Node gives once for what is experimental. */
function quietly(work) {
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    return work();
  } finally {
    process.emitWarning = emitWarning;
  }
}

function loader() {
  const directory = process.cwd();
  let found = loaders.get(directory);
  if (!found) {
    const filename = path.join(directory, "cell.js");
    const dynamic = DEFAULT_LOADER && new vm.Script("(name, options) => import(name, options)", { filename, importModuleDynamically: DEFAULT_LOADER }).runInThisContext();
    const local = (name) => (/^\.{0,2}\//.test(name) ? url.pathToFileURL(path.resolve(directory, name)).href : name);
    const importHere = dynamic ? (name, options) => quietly(() => dynamic(name, options)) : (name) => load(local(name));
    found = { require: nodeModule.createRequire(filename), import: importHere, meta: Object.freeze({ url: url.pathToFileURL(filename).href, dirname: directory, filename }) };
    loaders.set(directory, found);
  }
  return found;
}

// --- The user's own files of TypeScript.

const SUFFIXES = [".ts", ".mts", ".cts"];

/** What `import` loads: in a thread of Node's own for such hooks. */
const HOOKS = `
  import { readFile } from "node:fs/promises";
  let parser;
  export const initialize = (source) => void (parser = new Function(source)());
  export async function resolve(name, context, next) {
    try {
      return await next(name, context);
    } catch (error) {
      if (!/^(?:[.]{0,2}[/]|file:)/.test(name) || !/^ERR_(?:MODULE_NOT_FOUND|UNSUPPORTED_DIR_IMPORT)$/.test(error?.code)) throw error;
      // Written without its suffix, or with that which a compiler would give it.
      const bare = name.replace(/[.]([cm]?)js$/, ".$1ts");
      const tries = bare === name ? [name + ".ts", name + ".mts", name + ".cts", name.replace(/[/]?$/, "/index.ts")] : [bare];
      for (const tried of tries) {
        try {
          return await next(tried, context);
        } catch {}
      }
      throw error;
    }
  }
  export async function load(address, context, next) {
    const suffix = /^file:.*([.][cm]?ts)(?:[?#].*)?$/.exec(address)?.[1];
    if (!suffix) return next(address, context);
    const code = await readFile(new URL(address), "utf8");
    const isModule = suffix === ".mts" || (suffix === ".ts" && parser.isModule(code));
    try {
      return { format: isModule ? "module" : "commonjs", source: parser.fileOf(code, isModule), shortCircuit: true };
    } catch (error) {
      throw new SyntaxError(address + (error.loc ? ":" + error.loc.line : "") + ": " + error.message);
    }
  }
  //# sourceURL=sandcrab:hooks`;

/** What `require` loads. */
function compileFile(module, filename) {
  const code = fs.readFileSync(filename, "utf8");
  let text;
  try {
    text = parser().fileOf(code, false);
  } catch (error) {
    throw new SyntaxError(`${filename}${error.loc ? `:${error.loc.line}` : ""}: ${error.message}`);
  }
  module._compile(text, filename);
}

let takesFiles = false;
/** From the first name on that may be a file of the user's: most code never needs it. */
function takeFiles(name) {
  if (!typescript || takesFiles || !/^(?:[.]{0,2}[/]|file:|[.]{1,2}$)/.test(name)) return;
  takesFiles = true;
  for (const suffix of SUFFIXES) nodeModule._extensions[suffix] = compileFile;
  if (!nodeModule.register) return;
  quietly(() => nodeModule.register(`data:text/javascript,${encodeURIComponent(HOOKS)}`, { data: parserSource() }));
}

/** For a rewritten `import` statement: the module, if it has what the statement names. */
async function importNames(name, names, options) {
  takeFiles(name);
  const module = await loader().import(name, options);
  for (const wanted of names) {
    if (!(wanted in module)) throw new SyntaxError(`The requested module '${name}' does not provide an export named '${wanted}'`);
  }
  return module;
}

Object.defineProperty(globalThis, "__sandcrab", {
  value: Object.freeze({
    import: async (name, options) => {
      takeFiles(String(name));
      return loader().import(String(name), options);
    },
    importNames,
    get meta() {
      return loader().meta;
    },
    work: () => within.work(),
    take: (value) => within.take(value),
  }),
});
const requireHere = (name) => {
  takeFiles(String(name));
  return loader().require(name);
};
Object.defineProperties(requireHere, {
  resolve: { get: () => loader().require.resolve },
  cache: { get: () => loader().require.cache },
  main: { value: undefined },
});
// As in Node's own console: they can be replaced.
for (const [name, value] of [["require", requireHere], ["display", display], ["module", { exports: {} }]]) {
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
}
globalThis.exports = globalThis.module.exports;
// Where a cell would lie: `require` and `import` resolve from there.
for (const [name, part] of [["__filename", "filename"], ["__dirname", "dirname"]]) {
  const set = (value) => Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: true });
  Object.defineProperty(globalThis, name, { get: () => loader().meta[part], set, configurable: true, enumerable: false });
}

// --- What is shown.

const DISPLAY = Symbol.for("Jupyter.display");

/** The message for a value: its text and whatever richer forms it offers. */
function resultOf(value) {
  const offered = typeof value === "object" && value !== null && typeof value[DISPLAY] === "function" ? value[DISPLAY]() : undefined;
  const bundle = offered !== null && typeof offered === "object" ? { ...offered } : {};
  bundle["text/plain"] ??= shown(value);
  if (isPlain(value)) bundle["application/json"] ??= value;
  return messageOf(bundle);
}

/** A value as Node's own console shows it. A long text is cut before it is escaped. */
function shown(value) {
  if (typeof value === "string" && value.length > MAX_TEXT) {
    return `${inspect(value.slice(0, MAX_TEXT), { maxStringLength: null }).slice(0, MAX_TEXT)}… [${value.length - MAX_TEXT} more characters]`;
  }
  return inspect(value, { depth: 4, maxArrayLength: 1000, maxStringLength: MAX_TEXT >> 4 });
}

function isPrimitive(value) {
  return value === null || (typeof value !== "object" && typeof value !== "function");
}

function isPlain(value) {
  if (value === null || typeof value !== "object") return false;
  const prototype = Object.getPrototypeOf(value);
  return Array.isArray(value) || prototype === null || prototype === Object.prototype;
}

function messageOf(bundle) {
  const result = { __proto__: null };
  const data = { __proto__: null };
  const omitted = { __proto__: null };
  for (const type of Object.keys(bundle)) {
    const name = FORMATS[type];
    let content = bundle[type];
    if (name === "text") {
      result.text = shortened(String(content), MAX_TEXT);
      continue;
    }
    if (content instanceof Uint8Array) content = Buffer.from(content.buffer, content.byteOffset, content.byteLength).toString("base64");
    const size = sizeOf(content);
    if (size === undefined) continue;
    if (size > MAX_FORMAT || (type === "application/json" && size > MAX_TEXT)) omitted[name ?? type] = size;
    else {
      (name ? result : data)[name ?? type] = typeof content === "string" ? content : parse(stringify(content));
    }
  }
  const chart = chartOf(data);
  if (chart) result.chart = chart;
  if (Object.keys(data).length > 0) result.data = data;
  if (Object.keys(omitted).length > 0) result.omitted = omitted;
  return { type: "result", id: current, result };
}

/** The length of content as JSON; undefined if JSON cannot hold it. */
function sizeOf(content) {
  if (typeof content === "string") return content.length;
  try {
    return stringify(content)?.length;
  } catch {
    return undefined;
  }
}

const MARKS = { __proto__: null, point: "scatter", circle: "scatter", arc: "pie", rect: "heatmap", line: "line", bar: "bar" };

/** The data of a chart, where an object offers it (plotly, and vega). */
function chartOf(data) {
  for (const type of Object.keys(data)) {
    const content = data[type];
    if (content === null || typeof content !== "object") continue;
    if (type.startsWith("application/vnd.plotly")) {
      const kind = content.data?.[0]?.type ?? "scatter";
      const known = kind === "scatter" ? ((content.data?.[0]?.mode ?? "lines").includes("lines") ? "line" : "scatter") : kind;
      const title = content.layout?.title?.text ?? content.layout?.title;
      return {
        type: ["line", "scatter", "bar", "pie", "histogram", "heatmap"].includes(known) ? known : "unknown",
        library: "plotly",
        ...(typeof title === "string" ? { title } : {}),
        data: content.data ?? [],
        layout: content.layout ?? {},
        config: content.config ?? {},
      };
    }
    if (type.startsWith("application/vnd.vega")) {
      const mark = content.mark?.type ?? content.mark;
      const { title } = content;
      return { type: MARKS[mark] ?? "unknown", library: "altair", ...(typeof title === "string" ? { title } : {}), data: content };
    }
  }
  return undefined;
}

/** `display(…)` for code: shows a value now. With `{ raw: true }` it is an object of media types. */
function display(value, options) {
  if (current !== undefined) send(options?.raw ? messageOf(value) : resultOf(value));
}

/** An error as a caller gets it. */
function describe(thrown, name) {
  if (thrown instanceof Interrupted) return { name: "KeyboardInterrupt", value: "", traceback: ["KeyboardInterrupt"], line: null };
  if (thrown instanceof Syntax) {
    const { cause, line } = thrown;
    return { name: cause.name, value: shortened(String(cause.message), MAX_TEXT >> 4), traceback: [`${name}:${line}`, `${cause.name}: ${cause.message}`], line };
  }
  const value = thrown instanceof Thrown ? thrown.value : thrown;
  if (!(value instanceof Error) && !util.types.isNativeError(value)) {
    const text = shortened(inspect(value), MAX_TEXT >> 4);
    return { name: "Error", value: typeof value === "string" ? shortened(value, MAX_TEXT >> 4) : text, traceback: [`Uncaught ${text}`], line: null };
  }
  // With its cause, the errors that it stands for, its code and other properties.
  let lines = inspect(value, { depth: 4, maxStringLength: MAX_TEXT >> 4 }).split("\n");
  lines = lines.filter((line) => !/^ +at .*sandcrab:/.test(line));
  // Node puts an error without frames in brackets.
  if (lines.length === 1) lines[0] = lines[0].replace(/^\[(.*)\]$/, "$1");
  const found = new RegExp(`\\b${name}:(\\d+)`).exec(lines.join("\n"));
  if (lines.length > MAX_TRACEBACK_LINES) {
    const half = MAX_TRACEBACK_LINES >> 1;
    lines = [...lines.slice(0, half), `… [${lines.length - 2 * half} more lines]`, ...lines.slice(-half)];
  }
  return {
    name: String(value.name || "Error"),
    value: shortened(String(value.message), MAX_TEXT >> 4),
    traceback: lines.map((line) => shortened(line, MAX_LINE)),
    line: found ? Number(found[1]) : null,
  };
}

/** Frames of this program below the code's own: what calls it is the inspector, or the script that stands between. */
const isOurs = (file) => file !== null && file !== undefined && String(file).startsWith("sandcrab:");
const DOOR = "node:inspector";
const MARK = nodeMark();

/** How Node's own errors are marked: their stack names their code. */
function nodeMark() {
  try {
    Buffer.alloc("");
  } catch (error) {
    for (let holder = error; holder !== null; holder = Object.getPrototypeOf(holder)) {
      const found = Object.getOwnPropertySymbols(holder).find((symbol) => symbol.description === "kIsNodeError");
      if (found) return found;
    }
  }
}

// As Node formats a stack, without this program's frames. Code may replace it, as it may in Node.
Object.defineProperty(Error, "prepareStackTrace", {
  value: (error, frames) => {
    const own = frames.findIndex((frame) => isOurs(frame.getFileName()));
    const end = own > 0 && frames[own - 1].getFileName() === DOOR ? own - 1 : own;
    const shown = end < 0 ? frames : frames.slice(0, end);
    const isNodes = MARK !== undefined && typeof error === "object" && error !== null && MARK in error;
    const head = isNodes ? `${error.name} [${error.code}]: ${error.message}` : headOf(error);
    return shown.length === 0 ? head : `${head}\n    at ${shown.join("\n    at ")}`;
  },
  writable: true,
  configurable: true,
  enumerable: false,
});

function headOf(error) {
  try {
    return toText.call(error);
  } catch {
    return "<error>";
  }
}

// A callback or a promise that fails ends no context: it is told of where its code would have written it.
const uncaught = (what) => (error) => {
  try {
    stderr.write(`${what} ${inspect(error)}\n`);
  } catch {
    // The code has closed or replaced its stderr.
  }
};
// At the very end Node would write for a debugger's user that it waits for the watchdog's session.
const { reallyExit } = process;
process.reallyExit = (code) => {
  try {
    fs.closeSync(2);
  } catch {
    // The code has closed it.
  }
  reallyExit.call(process, code);
};
process.on("uncaughtException", uncaught("Uncaught"));
process.on("unhandledRejection", uncaught("Unhandled rejection of a promise:"));

/** Walks the way of a run once, while nobody waits for it: V8 compiles each function at its first call. */
async function rehearse() {
  // As the first run does: what runs before the watchdog is up is interrupted in another way.
  await watching;
  if (begun || !watched) return;
  const value = await evaluate(typescript ? "0 as number" : "0", "rehearsal");
  fitting(resultOf(value));
}

const watching = watch();
send({ type: "hello", version: process.versions.node });
setTimeout(() => rehearse().catch(uncaught("The rehearsal failed:")), REHEARSAL_MS).unref();
