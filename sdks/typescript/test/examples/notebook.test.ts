import { connect, getSandbox } from "sandcrab";
import { expect, inject, test, vi } from "vitest";

test("K01 notebook.ts: cells share their interpreter and show their results", async () => {
  vi.stubEnv("SANDCRAB_URL", inject("url"));
  vi.stubEnv("SANDCRAB_API_KEY", inject("key"));
  const sandbox = getSandbox(connect(), "notebook");
  await sandbox.destroy();
  const printed: string[] = [];
  vi.spyOn(console, "log").mockImplementation((...parts) => void printed.push(parts.join(" ")));
  try {
    const { shown } = await import("../../../../examples/notebook/notebook.js");
    expect(shown).toEqual([
      "{'jan': 120, 'feb': 95, 'mar': 143}",
      "{'total': 358, 'mean': 119.3}",
      "3 months, 358 units",
      "NameError in line 2: name 'unit' is not defined",
      "'best month: mar'",
      "3",
    ]);
    expect(printed).toContain("3 months read");
    expect(printed).toContain("=> 3 months, 358 units (text, html)");
    expect((await sandbox.readFile("/workspace/sales.html")).content).toContain("<tr><td>mar<td>██████████████ 143");
  } finally {
    vi.restoreAllMocks();
    vi.unstubAllEnvs();
    await sandbox.destroy();
  }
});
