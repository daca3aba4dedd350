// The wire types that this package uses, by their names in the API's document.
import type { components } from "./generated/api.js";

type Schemas = components["schemas"];

export type CodeContext = Schemas["CodeContext"];
export type CodeContextDeleted = Schemas["CodeContextDeleted"];
export type CodeContextList = Schemas["CodeContextList"];
export type CodeEvent = Schemas["CodeEvent"];
export type CodeResult = Schemas["CodeResult"];
export type ExecEvent = Schemas["ExecEvent"];
export type ExecOutcome = Schemas["ExecOutcome"];
export type ExecRequest = Schemas["ExecRequest"];
export type ExecResult = Schemas["ExecResult"];
export type ExistsResult = Schemas["ExistsResult"];
export type FileChanged = Schemas["FileChanged"];
export type FileEvent = Schemas["FileEvent"];
export type GitCheckoutResult = Schemas["GitCheckoutResult"];
export type ListFilesResult = Schemas["ListFilesResult"];
export type OutputEncoding = Schemas["OutputEncoding"];
export type LogLine = Schemas["LogLine"];
export type PortReady = Schemas["PortReady"];
export type ProcessCount = Schemas["ProcessCount"];
export type ProcessExit = Schemas["ProcessExit"];
export type ProcessInfo = Schemas["ProcessInfo"];
export type ProcessList = Schemas["ProcessList"];
export type ProcessLogEvent = Schemas["ProcessLogEvent"];
export type ProcessLogs = Schemas["ProcessLogs"];
export type ReadFileResult = Schemas["ReadFileResult"];
export type RunCodeRequest = Schemas["RunCodeRequest"];
export type RunCodeResult = Schemas["RunCodeResult"];
export type SandboxInfo = Schemas["SandboxInfo"];
export type SandboxStatus = Schemas["SandboxStatus"];
export type SessionDeleted = Schemas["SessionDeleted"];
export type SessionInfo = Schemas["SessionInfo"];
export type SessionList = Schemas["SessionList"];
export type StartProcess = Schemas["StartProcess"];
export type WaitForPort = Schemas["WaitForPort"];
