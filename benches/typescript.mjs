// The TypeScript side of the bench: the same work through the built package, in Node. Prints one JSON object, a figure for
// each row's key. Started by sandcrab-bench, which has a server running.
import { connect, getSandbox, parseSSEStream } from "../sdks/typescript/dist/index.js";

const namespace = connect(); // SANDCRAB_URL and SANDCRAB_API_KEY
const floor = process.env.BENCH_FLOOR_URL;
const only = process.env.BENCH_ONLY ?? "";
const figures = {};

const now = () => performance.now();

async function time(work) {
  const begun = now();
  await work();
  return now() - begun;
}

async function times(count, work) {
  const all = [];
  for (let number = 0; number < count; number++) all.push(await time(() => work(number)));
  return all;
}

function figure(all) {
  all.sort((a, b) => a - b);
  const at = (share) => all[Math.max(Math.ceil(share * all.length), 1) - 1];
  return { time: { median: at(0.5), p99: at(0.99) } };
}

const speed = (bytes, all) => ({ throughput: bytes / 1e3 / figure(all).time.median });

async function succeed(target, command) {
  const result = await target.exec(command);
  if (!result.success) throw new Error(`${command}: ${result.exitCode} ${result.stderr}`);
  return result;
}

async function sandboxed(name, work) {
  const sandbox = getSandbox(namespace, `bench-ts-${name}`);
  try {
    for (let warm = 0; warm < 50; warm++) await succeed(sandbox, "true");
    return await work(sandbox);
  } finally {
    await sandbox.destroy();
  }
}

const FUNCTIONS =
  'for i in $(seq 300); do eval "f$i() { local a=\\$1; if [ -n \\"\\$a\\" ]; then echo $i \\"\\$a\\"; fi; }"; done';
const VARIABLE = "printf -v big '%*s' 10000000 x";
const print = (bytes) => `head -c ${bytes} /dev/zero | tr '\\0' 'x'`;
const exec = (command, count, prepare) => (name) =>
  sandboxed(name, async (sandbox) => {
    if (prepare) await succeed(sandbox, prepare);
    await times(count / 4, () => succeed(sandbox, command));
    return figure(await times(count, () => succeed(sandbox, command)));
  });

const rows = {
  "exec-true": exec("true", 2000),
  "exec-functions": exec("true", 1000, FUNCTIONS),
  "exec-variable": exec("true", 500, VARIABLE),
  "exec-bin-true": exec("/bin/true", 800),

  async "http-floor"() {
    const post = async () => (await fetch(`${floor}/echo`, { method: "POST", body: '{"command":"true"}' })).text();
    await times(500, post);
    return figure(await times(2000, post));
  },

  "stream-first": (name) =>
    sandboxed(name, async (sandbox) => {
      const all = [];
      for (let number = 0; number < 300; number++) {
        const begun = now();
        let first;
        for await (const event of parseSSEStream(await sandbox.execStream("echo first"))) {
          if (event.type === "stdout") first ??= now() - begun;
        }
        if (first === undefined) throw new Error("a stream without output");
        all.push(first);
      }
      return figure(all);
    }),

  async create() {
    const all = [];
    for (let number = 0; number < 60; number++) {
      const sandbox = getSandbox(namespace, `bench-ts-create-${number}`);
      all.push(await time(() => succeed(sandbox, "true")));
      await sandbox.destroy();
    }
    return figure(all);
  },

  session: (name) =>
    sandboxed(name, async (sandbox) => {
      const all = [];
      for (let number = 0; number < 100; number++) {
        const id = `s${number}`;
        all.push(await time(async () => succeed(await sandbox.createSession({ id }), "true")));
        await sandbox.deleteSession(id);
      }
      return figure(all);
    }),

  many: (name) =>
    sandboxed(name, async (sandbox) => {
      const ids = Array.from({ length: 50 }, (_, number) => `s${number}`);
      const sessions = await Promise.all(ids.map((id) => sandbox.getSession(id)));
      await Promise.all(sessions.map((session) => succeed(session, "true")));
      const each = 10;
      const callers = sessions.flatMap((session) => Array.from({ length: 20 }, () => session));
      const took = await time(() => Promise.all(callers.map((session) => times(each, () => session.exec("true")))));
      return { rate: (callers.length * each * 1000) / took };
    }),

  "bulk-stream": (name) =>
    sandboxed(name, async (sandbox) => {
      const bytes = 100_000_000;
      const all = await times(3, async () => {
        let seen = 0;
        for await (const event of parseSSEStream(await sandbox.execStream(print(bytes)))) {
          if (event.type === "stdout") seen += event.data.length;
        }
        if (seen !== bytes) throw new Error(`${seen} bytes came instead of ${bytes}`);
      });
      return speed(bytes, all);
    }),

  "bulk-result": (name) =>
    sandboxed(name, async (sandbox) => {
      const bytes = 10_000_000;
      const all = await times(10, async () => {
        const { stdout } = await succeed(sandbox, print(bytes));
        if (stdout.length !== bytes) throw new Error(`${stdout.length} bytes came instead of ${bytes}`);
      });
      return speed(bytes, all);
    }),

  "file-write": (name) =>
    sandboxed(name, async (sandbox) => {
      const content = Uint8Array.from({ length: 1 << 20 }, (_, at) => at % 251);
      return figure(await times(100, () => sandbox.writeFile("/workspace/content", content)));
    }),

  "file-read": (name) =>
    sandboxed(name, async (sandbox) => {
      const content = Uint8Array.from({ length: 1 << 20 }, (_, at) => at % 251);
      await sandbox.writeFile("/workspace/content", content);
      return figure(
        await times(100, async () => {
          const { content: stream } = await sandbox.readFile("/workspace/content", { encoding: "none" });
          let seen = 0;
          for await (const chunk of stream) seen += chunk.length;
          if (seen !== content.length) throw new Error(`${seen} bytes came instead of ${content.length}`);
        }),
      );
    }),
};

for (const [name, row] of Object.entries(rows)) {
  if (!name.includes(only)) continue;
  process.stderr.write(`  ${name}\n`);
  figures[name] = await row(name);
}
process.stdout.write(JSON.stringify(figures));
