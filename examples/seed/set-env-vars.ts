import { getSandbox } from "sandcrab";
import { env } from "./env.js";

const sandbox = getSandbox(env.Sandbox, 'user-123');

// Set environment variables first
await sandbox.setEnvVars({
  API_KEY: env.OPENAI_API_KEY,
  DATABASE_URL: env.DATABASE_URL,
  NODE_ENV: 'production'
});

// Now commands can access these variables
await sandbox.exec('python script.py');
