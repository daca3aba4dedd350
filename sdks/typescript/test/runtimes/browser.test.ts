import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { freshId } from "../support/sandbox.js";
import { siteText } from "../support/site.js";
import { EXPECTED, script } from "./script.js";

/** Debian's package `chromium`. */
const CHROMIUM = process.env.SANDCRAB_CHROMIUM || "/usr/bin/chromium";

let browser: Browser;

beforeAll(async () => {
  if (!existsSync(CHROMIUM)) {
    throw new Error(`no browser at ${CHROMIUM}: apt-get install chromium, or name one in SANDCRAB_CHROMIUM`);
  }
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
});

afterAll(() => browser?.close());

test("the package runs in a browser, on a page of another origin", async () => {
  const page = await browser.newPage();
  const complaints: string[] = [];
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(inject("origin"));
  const args = JSON.stringify([inject("url"), inject("key"), freshId(), await siteText()]);
  const run = `import("/sandcrab.js").then((api) => (${script})(api, ...${args}))`;
  const found = await page.evaluate(run).catch((error: Error) => `${error.message}\n${complaints.join("\n")}`);
  expect(found).toEqual(EXPECTED);
  await page.close();
});
