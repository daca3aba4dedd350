import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, inject } from "vitest";
import { HOME, mirror, startDevServer } from "../../../../examples/dev-server/dev-server.js";
import { launchBrowser } from "../support/browser.js";
import { test } from "../support/sandbox.js";
import { viteProject } from "../support/vite.js";

let browser: Browser;

beforeAll(async () => {
  browser = await launchBrowser();
});

afterAll(() => browser?.close());

/** What the page shows, and whether it is the one that the marker was left in. */
function look(page: Page): Promise<unknown> {
  return page.evaluate(() => {
    const text = document.querySelector("#text");
    if (text === null) return null;
    return { text: text.textContent, colour: getComputedStyle(text).color, marker: Reflect.get(window, "marker") };
  });
}

test("C05 a page of Vite's dev server reloads what is changed while it stays, over its preview alone", async ({
  sandbox,
}) => {
  await using project = await viteProject();
  const hostname = `localhost:${new URL(inject("url")).port}`;
  const { url } = await startDevServer(sandbox, project.folder, { hostname });
  const page = await browser.newPage();
  const sockets: string[] = [];
  const complaints: string[] = [];
  page.on("websocket", (socket) => sockets.push(new URL(socket.url()).host));
  page.on("requestfailed", (request) => complaints.push(`${request.url()} ${request.failure()?.errorText}`));
  page.on("pageerror", (error) => complaints.push(String(error)));
  const connected = page.waitForEvent("console", (message) => message.text().includes("[vite] connected"));
  await page.goto(url);
  await connected;
  await page.evaluate(() => Reflect.set(window, "marker", "still here"));
  expect(await look(page)).toEqual({ text: "before", colour: "rgb(1, 2, 3)", marker: "still here" });

  await sandbox.writeFile(`${HOME}/src/text.js`, 'export const text = "after";\n');
  await page.getByText("after", { exact: true }).waitFor();
  await sandbox.writeFile(`${HOME}/src/style.css`, "#text { color: rgb(4, 5, 6); }\n");
  await expect.poll(() => look(page)).toEqual({ text: "after", colour: "rgb(4, 5, 6)", marker: "still here" });
  // So does what is edited beside the sandbox.
  const stop = new AbortController();
  const mirroring = mirror(sandbox, project.folder, stop.signal);
  await writeFile(join(project.folder, "src/text.js"), 'export const text = "edited here";\n');
  await page.getByText("edited here", { exact: true }).waitFor();
  expect(await look(page)).toMatchObject({ marker: "still here" });
  stop.abort();
  await mirroring;
  expect([...new Set(sockets)]).toEqual([new URL(url).host]);
  expect(complaints).toEqual([]);

  // The marker tells a page that was loaded anew: Vite does that when the document itself changes.
  const { content } = await sandbox.readFile(`${HOME}/index.html`);
  await sandbox.writeFile(`${HOME}/index.html`, content.replace("<title>app", "<title>new"));
  await expect.poll(() => page.title()).toBe("new");
  await expect.poll(() => look(page)).toEqual({ text: "edited here", colour: "rgb(4, 5, 6)", marker: undefined });
  await page.close();
});
