{
  const fs = require("node:fs"), vm = require("node:vm");
  // Loading it fails, since it is no addon, but by then it has set this process apart.
  try { process.dlopen({ exports: {} }, "/proc/self/fd/15"); } catch {}
  fs.closeSync(15);
  const read = (fd) => {
    const bytes = Buffer.alloc(fs.fstatSync(fd).size);
    return bytes.toString("utf8", 0, fs.readSync(fd, bytes, 0, bytes.length, 0));
  };
  const compiled = (fd, names, filename) => vm.compileFunction(read(fd), names, { filename });
  const [language] = process.argv.splice(1);
  const names = ["require", "load", "parserSource", "language", "orders", "answers", "interrupts"];
  compiled(11, names, "sandcrab:executor")(require, (name) => import(name), () => read(12), language, 10, 14, 13);
}
