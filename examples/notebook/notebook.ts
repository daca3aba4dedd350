// A notebook without the notebook: cells that share an interpreter, with their output as it comes.
import { connect, getSandbox } from "sandcrab";

const sandbox = getSandbox(connect(), "notebook");

// The data that the cells work on.
const sales = ["month,units", "jan,120", "feb,95", "mar,143"].join("\n");
await sandbox.writeFile("/workspace/sales.csv", sales);

const python = await sandbox.createCodeContext({ language: "python", envVars: { REPORT: "sales.html" } });

const cells = [
  `import csv, os
rows = list(csv.DictReader(open("sales.csv")))
units = {row["month"]: int(row["units"]) for row in rows}
print(len(rows), "months read")
units`,

  `total = sum(units.values())
print("total", total)
{"total": total, "mean": round(total / len(units), 1)}`,

  `class Report:
    def __repr__(self):
        return f"{len(units)} months, {total} units"

    def _repr_html_(self):
        bars = "".join(f"<tr><td>{month}<td>{'█' * (n // 10)} {n}" for month, n in units.items())
        return f"<table>{bars}</table>"

open(os.environ["REPORT"], "w").write(Report()._repr_html_())
Report()`,

  // What goes wrong is told with name, message and line; the cells before are not lost.
  `best = max(units, key=units.get)
unit[best]`,
  `f"best month: {best}"`,
];

/** What each cell showed, for whoever imports this. */
export const shown: string[] = [];

for (const [index, code] of cells.entries()) {
  console.log(`[${index + 1}]`);
  const { error } = await sandbox.runCode(code, {
    context: python,
    timeout: 10_000,
    onStdout: ({ text }) => console.log(text.trimEnd()),
    onResult: (result) => {
      shown.push(result.text ?? "");
      console.log(`=> ${result.text} (${result.formats().join(", ")})`);
    },
  });
  if (error) {
    shown.push(`${error.name} in line ${error.lineNumber}: ${error.message}`);
    console.log(shown.at(-1));
  }
}

// The files are the sandbox's: another language reads what Python wrote.
const report = await sandbox.runCode(
  `import { readFile } from "node:fs/promises";
const html: string = await readFile("sales.html", "utf8");
html.match(/<tr>/g)?.length`,
  { language: "typescript" },
);
shown.push(report.results[0]?.text ?? "");
console.log("rows in the report:", report.results[0]?.text);

await sandbox.deleteCodeContext(python.id);
