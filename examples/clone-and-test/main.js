// node main.js URL [BRANCH] [COMMAND…]; a token in GIT_TOKEN; SANDCRAB_URL and SANDCRAB_API_KEY say where.
import { connect, getSandbox } from "sandcrab";
import { cloneAndTest } from "./clone-and-test.js";

const [repoUrl, branch, ...words] = process.argv.slice(2);
if (repoUrl === undefined) throw new Error("usage: node main.js URL [BRANCH] [COMMAND…]");

const sandbox = getSandbox(connect(), `try-${Date.now()}`);
try {
  const result = await cloneAndTest(sandbox, repoUrl, {
    branch,
    token: process.env.GIT_TOKEN,
    command: words.join(" ") || undefined,
    onOutput: (stream, data) => process[stream].write(data),
  });
  console.log(result.problem ?? `${result.branch} at ${result.commit}: ${result.passed ? "passed" : "failed"}`);
  process.exitCode = result.passed ? 0 : 1;
} finally {
  await sandbox.destroy();
}
