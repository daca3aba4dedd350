import { connect, getSandbox, SandboxAlreadyExistsError, UnauthorizedError, ValidationFailedError } from "sandcrab";
import { describe, expect, inject } from "vitest";
import { connection, freshId, rejection, test } from "../support/sandbox.js";

describe("L01 creation", () => {
  test("L01 getSandbox makes no request; the first use creates the sandbox, once for concurrent ones", async ({
    sandbox,
  }) => {
    expect(await sandbox.getState()).toEqual({ status: "stopped", lastChange: 0 });
    const results = await Promise.all(
      Array.from({ length: 8 }, (_, n) => sandbox.exec("echo up >> /tmp/ups", { sessionId: `s${n}` })),
    );
    expect(results.every(({ success }) => success)).toBe(true);
    expect((await sandbox.exec("wc -l < /tmp/ups")).stdout).toBe("8");
    const state = await sandbox.getState();
    expect(state.status).toBe("healthy");
    expect(Math.abs(Date.now() - state.lastChange)).toBeLessThan(60_000);
  });

  test("L01 options are those the sandbox is made with; what is fixed cannot differ later", async () => {
    const id = freshId();
    const sandbox = getSandbox(connection(), id, {
      env: { FROM: "options" },
      limits: { pids: 100 },
      sleepAfter: "5m",
      labels: { a: "b" },
    });
    try {
      expect((await sandbox.exec("echo $FROM")).stdout).toBe("options");
      // What is not fixed may change, and the same again changes nothing.
      await getSandbox(connection(), id, { limits: { pids: 100 }, keepAlive: true }).exec("true");
      const other = getSandbox(connection(), id, { limits: { pids: 200 } });
      for (let attempt = 0; attempt < 2; attempt++) {
        const error = await rejection(other.exec("touch /tmp/ran"));
        expect(error).toBeInstanceOf(SandboxAlreadyExistsError);
        expect((error as Error).message).toContain("limits");
      }
      expect((await sandbox.exists("/tmp/ran")).exists).toBe(false);
    } finally {
      await sandbox.destroy();
    }
  });

  test("L01 X02 what may change is changed by itself, and a bad value changes nothing", async () => {
    const sandbox = getSandbox(connection(), freshId(), {
      sleepAfter: "5m",
      labels: { a: "b" },
      limits: { pids: 100 },
    });
    const facts = async () => {
      const answer = await fetch(`${inject("url")}/v1/sandboxes/${sandbox.id}`, {
        headers: { authorization: `Bearer ${inject("key")}` },
      });
      const { sleepAfter, keepAlive, labels, limits } = (await answer.json()) as Record<string, object>;
      return { sleepAfter, keepAlive, labels, limits };
    };
    try {
      // As the first operation it makes the sandbox as it is wanted.
      await sandbox.setSleepAfter(90);
      const limits = expect.objectContaining({ pids: 100 });
      expect(await facts()).toEqual({ sleepAfter: 90, keepAlive: false, labels: { a: "b" }, limits });
      await sandbox.setKeepAlive(true);
      await sandbox.setLabels({ c: "d" });
      const error = await rejection(sandbox.setSleepAfter("soon"));
      expect(error).toMatchObject({ code: "VALIDATION_FAILED", message: expect.stringContaining("sleepAfter") });
      expect(await facts()).toEqual({ sleepAfter: 90, keepAlive: true, labels: { c: "d" }, limits });
    } finally {
      await sandbox.destroy();
    }
  });

  test("X02 L01 bad options name their field and make no sandbox", async () => {
    const id = freshId();
    for (const [field, options] of [
      ["sleepAfter", { sleepAfter: "soon" }],
      ["limits", { limits: { memory: 1 } }],
      ["network", { network: "internet" as "host" }],
      ["env", { env: { "A=B": "1" } }],
    ] as const) {
      const error = await rejection(getSandbox(connection(), id, options).exec("true"));
      expect(error, field).toBeInstanceOf(ValidationFailedError);
      expect((error as Error).message, field).toContain(field);
    }
    expect(await getSandbox(connection(), id).getState()).toEqual({ status: "stopped", lastChange: 0 });
  });
});

describe("L06 destroy", () => {
  test("L06 frees everything; a later use of the id is a new, empty sandbox", async ({ sandbox }) => {
    const session = await sandbox.createSession({ id: "s" });
    await session.exec("A=1; cd /tmp; echo x > /tmp/f; sleep 1000 &");
    await sandbox.setEnvVars({ B: "2" });
    await sandbox.destroy();
    expect(await sandbox.getState()).toEqual({ status: "stopped", lastChange: 0 });
    const { stdout } = await session.exec(
      'echo "${A-unset} ${B-unset} $PWD"; ls -A /tmp /workspace; pgrep -x sleep | wc -l',
    );
    expect(stdout).toBe("unset unset /workspace\n/tmp:\n\n/workspace:\n0");
  });

  test("L06 destroying what does not exist, or twice, is no error", async ({ sandbox }) => {
    await sandbox.destroy();
    await sandbox.exec("true");
    await Promise.all([sandbox.destroy(), sandbox.destroy()]);
    await sandbox.destroy();
  });

  test("L06 a command that runs ends with an error, not with a result", async ({ sandbox }) => {
    const running = rejection(sandbox.exec("touch /tmp/runs; sleep 30"));
    await expect.poll(async () => (await sandbox.exists("/tmp/runs")).exists).toBe(true);
    await sandbox.destroy();
    expect(await running).toMatchObject({ code: expect.any(String), httpStatus: expect.any(Number) });
  });
});

test("X01 a wrong key is UnauthorizedError, and nothing is done", async () => {
  const id = freshId();
  const intruder = getSandbox(connect({ url: inject("url"), apiKey: "wrong" }), id);
  for (const call of [
    () => intruder.exec("true"),
    () => intruder.readFile("/etc/passwd"),
    () => intruder.destroy(),
    () => intruder.getState(),
  ]) {
    const error = await rejection(call());
    expect(error).toBeInstanceOf(UnauthorizedError);
    expect(error).toMatchObject({ code: "UNAUTHORIZED", httpStatus: 401, suggestion: expect.stringMatching(/\.$/) });
  }
  expect(await getSandbox(connection(), id).getState()).toEqual({ status: "stopped", lastChange: 0 });
});

test("ids of any allowed kind reach their sandbox", async () => {
  for (const name of ["a.b~c", "x@y", "q?a=b", "h#a", "p+l&u;s", "UPPER"]) {
    const sandbox = getSandbox(connection(), `${name}${freshId()}`.slice(0, 63).replace(/-$/, "x"));
    await sandbox.exec("echo here > /tmp/f");
    expect((await sandbox.readFile("/tmp/f")).content, name).toBe("here\n");
    await sandbox.destroy();
  }
});

test("B09 session ids with odd characters are literal", async ({ sandbox }) => {
  for (const id of ["user@example.com", "$(touch evil)", "a b", "ünï 🦀", "?x=1#y", "%2e%2e", "a\\b;c"]) {
    const session = await sandbox.createSession({ id });
    await session.setEnvVars({ MINE: id });
    expect((await session.exec('printf %s "$MINE"')).stdout).toBe(id);
    expect((await sandbox.deleteSession(id)).sessionId).toBe(id);
  }
  expect((await sandbox.exists("evil")).exists).toBe(false);
});

test("stop ends what runs and keeps the files; the next use starts it on them", async ({ sandbox }) => {
  await sandbox.writeFile("/tmp/kept", "here");
  await sandbox.startProcess("trap 'echo bye > /tmp/last; exit' TERM; while :; do sleep 0.01; done; # loop", {
    processId: "loop",
  });
  const running = rejection(sandbox.exec("sleep 100"));
  await expect.poll(async () => (await sandbox.listSessions())[0]?.busy).toBe(true);
  await sandbox.stop();
  expect(await running).toMatchObject({ code: "OPERATION_INTERRUPTED", message: expect.stringContaining("stopped") });
  expect((await sandbox.getState()).status).toBe("stopped");
  expect((await sandbox.exec("cat /tmp/kept /tmp/last; pgrep -f loop")).stdout).toBe("herebye");
  await sandbox.stop("SIGKILL");
  await sandbox.stop(9);
  expect((await sandbox.readFile("/tmp/kept")).content).toBe("here");
  expect(await rejection(sandbox.stop("SIGHUP" as "SIGKILL"))).toMatchObject({ httpStatus: 400 });
  const never = getSandbox(connection(), freshId());
  await never.stop();
  expect(await never.getState()).toEqual({ status: "stopped", lastChange: 0 });
});

test("what has no meaning here is accepted", async ({ sandbox }) => {
  await sandbox.setTransport("rpc");
  await sandbox.setContainerTimeouts({ portReadyTimeoutMS: 1 });
  expect(await sandbox.getContainerPlacementId()).toBeNull();
});
