import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { launchBrowser } from "../support/browser.js";
import { freshId } from "../support/sandbox.js";
import { siteText } from "../support/site.js";
import { EXPECTED, script } from "./script.js";

let browser: Browser;

beforeAll(async () => {
  browser = await launchBrowser();
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
