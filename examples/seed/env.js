// What the examples find in a Worker: bindings and secrets in `env`, and a sandbox.
import { connect, getSandbox } from "sandcrab";

export const env = {
  Sandbox: connect(), // SANDCRAB_URL and SANDCRAB_API_KEY
  OPENAI_API_KEY: process.env.OPENAI_API_KEY ?? "an-api-key",
  DATABASE_URL: process.env.DATABASE_URL ?? "postgres://localhost/app",
};

export const sandbox = getSandbox(env.Sandbox, "seed");
