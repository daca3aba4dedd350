// Puts into a sandbox what the examples take for granted: packages to build, a repository to clone, a script to run.
// A sandbox reaches nothing but its own loopback, so the repository is served there, under the name that it has on
// the internet, and no package needs a registry.

/** A package whose `npm run build` writes down the environment that it was built for. */
const BUILD = `const { mkdirSync, writeFileSync } = require("node:fs");
const { NODE_ENV, API_URL } = process.env;
mkdirSync("dist", { recursive: true });
writeFileSync("dist/config.json", JSON.stringify({ NODE_ENV, API_URL }));
console.log(\`built \${process.cwd()} for \${NODE_ENV}\`);
`;

/** Packages in /workspace/prod and /workspace/test. */
export async function preparePackages(sandbox) {
  for (const name of ["prod", "test"]) {
    const manifest = { name, version: "1.0.0", private: true, scripts: { build: "node build.js" } };
    await sandbox.writeFile(`/workspace/${name}/package.json`, JSON.stringify(manifest));
    await sandbox.writeFile(`/workspace/${name}/build.js`, BUILD);
  }
}

/**
 * The repository https://github.com/user/repo.git: a package with a dependency of its own tree and, unless told
 * otherwise, another package in its folder `repo`, where the second request's `cd repo` leads.
 */
export async function prepareRepository(sandbox, { withFolder = true } = {}) {
  const tree = "/tmp/seed-repository";
  const files = {
    "package.json": { name: "repo", version: "1.0.0", private: true, dependencies: { greeting: "file:./greeting" } },
    "greeting/package.json": { name: "greeting", version: "1.0.0", main: "index.js" },
    "greeting/index.js": 'module.exports = "hello from the dependency";\n',
    ".npmrc": "audit=false\nfund=false\nupdate-notifier=false\n",
    ".gitignore": "node_modules/\ndist/\n",
    ...(withFolder && {
      "repo/package.json": { name: "inner", version: "1.0.0", private: true, scripts: { build: "node build.js" } },
      "repo/build.js":
        'const fs = require("node:fs");\nfs.mkdirSync("dist", { recursive: true });\nfs.writeFileSync("dist/out.txt", require("greeting"));\n',
    }),
  };
  for (const [path, content] of Object.entries(files)) {
    await sandbox.writeFile(`${tree}/${path}`, typeof content === "string" ? content : JSON.stringify(content));
  }
  // A session of its own, so that the daemon and the steps leave the examples' sessions untouched.
  const { exitCode, stderr } = await sandbox.exec(
    `cd ${tree} && git init -q -b main && git add . &&
     git -c user.name=seed -c user.email=seed@localhost commit -q -m 'A package' &&
     git clone -q --bare . /srv/git/user/repo.git &&
     git config --system url.git://127.0.0.1/.insteadOf https://github.com/`,
    { sessionId: "preparation" },
  );
  if (exitCode !== 0) throw new Error(`the repository could not be served: ${stderr}`);
  const daemon = await sandbox.startProcess("git daemon --base-path=/srv/git --export-all --listen=127.0.0.1 --reuseaddr", {
    sessionId: "preparation",
  });
  await daemon.waitForPort(9418, { mode: "tcp" });
}

/** /workspace/script.py, which writes down what it finds in its environment. */
export async function prepareScript(sandbox) {
  const script = `import json, os
names = ["API_KEY", "DATABASE_URL", "NODE_ENV"]
with open("/tmp/script-saw.json", "w") as out:
    json.dump({name: os.environ.get(name) for name in names}, out)
`;
  await sandbox.writeFile("/workspace/script.py", script);
}
