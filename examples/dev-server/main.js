// node main.js FOLDER [PORT] [COMMAND…]; SANDCRAB_URL and SANDCRAB_API_KEY say where. Ctrl-C ends it.
import { connect, getSandbox } from "sandcrab";
import { mirror, startDevServer } from "./dev-server.js";

const [folder, port = "5173", ...words] = process.argv.slice(2);
if (folder === undefined) throw new Error("usage: node main.js FOLDER [PORT] [COMMAND…]");

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => stop.abort());
const connection = connect();
const sandbox = getSandbox(connection, `dev-${Date.now()}`, { keepAlive: true });
try {
  const { url } = await startDevServer(sandbox, folder, {
    port: Number(port),
    command: words.join(" ") || undefined,
    // A domain of your own where the server has one: see --preview-domain.
    hostname: process.env.PREVIEW_DOMAIN ?? new URL(connection.url).host,
    onOutput: (stream, data) => process[stream].write(data),
  });
  console.log(`${folder} is shown at ${url}`);
  await mirror(sandbox, folder, stop.signal);
} finally {
  stop.abort();
  await sandbox.destroy();
}
