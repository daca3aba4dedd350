import { sandbox } from "./env.js";

// Second request - resume session (environment and cwd preserved)
const session = await sandbox.getSession("user-123");
const result = await session.exec("cd repo && npm run build");
