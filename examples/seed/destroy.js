import { getSandbox } from "sandcrab";
import { env } from "./env.js";

async function executeCode(code) {
  const sandbox = getSandbox(env.Sandbox, `temp-${Date.now()}`);

  try {
    await sandbox.writeFile("/tmp/code.py", code);
    const result = await sandbox.exec("python /tmp/code.py");
    return result.stdout;
  } finally {
    await sandbox.destroy();
  }
}

export { executeCode };
