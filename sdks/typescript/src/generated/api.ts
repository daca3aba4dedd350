// Generated from openapi.json by `npm run generate`. Do not edit.
export type paths = Record<string, never>;
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /** @description A failure as it goes over the wire. */
        ApiError: {
            /** @description What went wrong, for programs. */
            code: components["schemas"]["ErrorCode"];
            /** @description Facts by code: `{path}`, `{sessionId}`, `{validationErrors}`, … */
            context?: Record<string, never>;
            /** @description Where to read more. */
            documentation?: string;
            /**
             * Format: int32
             * @description The HTTP status of this answer.
             */
            httpStatus: number;
            /** @description What went wrong, for people; names the thing at fault. */
            message: string;
            /** @description The operation that failed: `exec`, `readFile`, … */
            operation?: string;
            /** @description What a person can do about it. */
            suggestion?: string;
            /** @description When it happened. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /** @description Bytes as a number, or text such as `512m`, `1.5g`. */
        ByteSize: number | string;
        /** @description A context as it stands now. */
        CodeContext: {
            /** @description When it was made. */
            createdAt: components["schemas"]["Timestamp"];
            /** @description The working directory that it started in. */
            cwd: string;
            /** @description Its id. */
            id: components["schemas"]["ContextId"];
            /** @description What it speaks. */
            language: components["schemas"]["CodeLanguage"];
            /** @description When a run last began in it, at first when it was made. */
            lastUsed: components["schemas"]["Timestamp"];
        };
        /** @description The answer to deleting a context. */
        CodeContextDeleted: {
            /** @description The id that names nothing any more. */
            contextId: components["schemas"]["ContextId"];
            /** @description Always true: failures are errors. */
            success: boolean;
            /** @description When it was done. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /** @description All contexts of a sandbox, by age; also those that runs without a context have made. */
        CodeContextList: {
            /** @description The contexts. */
            contexts: components["schemas"]["CodeContext"][];
        };
        /** @description Why code ended before its end. */
        CodeError: {
            /**
             * Format: int64
             * @description The line of this run's code at which it happened, from 1.
             */
            lineNumber?: number;
            /**
             * @description The exception's class. `TimeoutError` when the run's time was over, `InterpreterExited` when the interpreter is
             *     gone.
             */
            name: string;
            /** @description The traceback, line by line. */
            traceback: string[];
            /** @description What it says. */
            value: string;
        };
        /** @description One event of a run's stream. Its SSE `id` is where the stream can be resumed. */
        CodeEvent: {
            /** @description The context that runs it. */
            contextId: components["schemas"]["ContextId"];
            /** @description The run's id, to resume or cancel it by. */
            runId: components["schemas"]["RunId"];
            /** @description When it started. */
            timestamp: components["schemas"]["Timestamp"];
            /** @enum {string} */
            type: "start";
        } | {
            /** @description What. */
            text: string;
            /** @enum {string} */
            type: "stdout";
        } | {
            /** @description What. */
            text: string;
            /** @enum {string} */
            type: "stderr";
        } | (components["schemas"]["CodeResult"] & {
            /** @enum {string} */
            type: "result";
        }) | {
            /**
             * Format: int64
             * @description How many runs have begun in the context.
             */
            execution_count: number;
            /** @description How it ended. */
            outcome: components["schemas"]["RunOutcome"];
            /** @enum {string} */
            type: "execution_complete";
        } | {
            /** @description The whole error where the code could not be run, or was cancelled, as any other route would have answered it. */
            detail?: components["schemas"]["ApiError"];
            /** @description The exception's class, or the code of `detail`. */
            ename: string;
            /** @description What it says. */
            evalue: string;
            /** @description How it ended; missing where `detail` stands. */
            outcome?: components["schemas"]["RunOutcome"];
            /** @description The traceback, line by line. */
            traceback: string[];
            /** @enum {string} */
            type: "error";
        };
        /**
         * @description What a context speaks.
         * @enum {string}
         */
        CodeLanguage: "python" | "javascript" | "typescript";
        /** @description What a run wrote, as text; bytes that are no UTF-8 are U+FFFD. Long output comes in several pieces. */
        CodeLogs: {
            /** @description Pieces of stderr. */
            stderr: string[];
            /** @description Pieces of stdout. */
            stdout: string[];
        };
        /**
         * @description Something that code shows: the value of its last expression, or what it displays. A field for each form in which the
         *     value offers itself.
         */
        CodeResult: {
            /**
             * @description The data of a chart, where the object offers it (plotly, altair) or is a figure of matplotlib: `type`, `title`, `data`,
             *     `layout`, `config`, `library`. Of matplotlib, `data` has the series, each with its `type` and the number of its
             *     axes, and `layout.axes` their titles, labels and scales.
             */
            chart?: Record<string, never>;
            /** @description Forms that have no field of their own, by media type. */
            data?: Record<string, never>;
            /**
             * @description `text/html`.
             * @default null
             */
            html: string;
            /**
             * @description `application/javascript`.
             * @default null
             */
            javascript: string;
            /**
             * @description `image/jpeg`, base64.
             * @default null
             */
            jpeg: string;
            /** @description The value as JSON: of plain lists and objects, and of what offers `application/json`. */
            json?: unknown;
            /**
             * @description `text/latex`.
             * @default null
             */
            latex: string;
            /**
             * @description `text/markdown`.
             * @default null
             */
            markdown: string;
            /**
             * @description Forms that were too long to be kept, with their length. `text` is cut instead, and says so.
             * @default null
             */
            omitted: {
                [key: string]: number;
            };
            /**
             * @description `image/png`, base64.
             * @default null
             */
            png: string;
            /**
             * @description `image/svg+xml`.
             * @default null
             */
            svg: string;
            /**
             * @description `text/plain`: what the language's own console would print.
             * @default null
             */
            text: string;
        };
        /** @description A code context's id: 1-64 characters of `A-Z a-z 0-9 _ -`. */
        ContextId: string;
        /** @description What a new context starts with. */
        CreateCodeContext: {
            /** @description Working directory, made if it is missing. Default: the session's. */
            cwd?: string;
            /** @description Variables of this context alone; they win over the session's and the sandbox's. `null` unsets. */
            envVars?: components["schemas"]["EnvironmentChanges"];
            /** @description Default `python`. */
            language?: components["schemas"]["CodeLanguage"];
            /**
             * @description The session whose exported variables and working directory it starts with (contract S14). Default: none, the
             *     sandbox's variables in `/workspace`.
             */
            sessionId?: components["schemas"]["SessionId"];
            /**
             * Format: int64
             * @description `timeout` in milliseconds of each run that names none itself. Default 60,000.
             */
            timeout?: number;
        };
        /** @description How to make a sandbox, or what to change of one that exists. Every field may be missing. */
        CreateSandbox: {
            /** @description The sandbox's variables at its creation; later changes go through `setEnvVars`. */
            env?: components["schemas"]["EnvironmentChanges"];
            /**
             * @description The image: `host`, this machine's own programs (default), or `python`, these and a data stack, which the first
             *     sandbox that is made of it waits for. Fixed at creation.
             */
            image?: string;
            /** @description What its code may ask of the kernel. Fixed at creation. */
            isolation?: components["schemas"]["Isolation"];
            /** @description Never sleep. Default false. */
            keepAlive?: boolean;
            /** @description Labels for people and for filters. Given labels replace the old ones. */
            labels?: components["schemas"]["Labels"];
            /** @description Bounds on resources. Fixed at creation. */
            limits?: components["schemas"]["Limits"];
            /** @description Default `loopback`. Fixed at creation. */
            network?: components["schemas"]["Network"];
            /** @description Idle time until it sleeps. Default 3 minutes. */
            sleepAfter?: components["schemas"]["IdleTime"];
        };
        /** @description What a new session starts with. */
        CreateSession: {
            /**
             * Format: int64
             * @description `timeout` in milliseconds of each command that names none itself. Default: no timeout.
             */
            commandTimeoutMs?: number;
            /** @description Where the session's first command runs; created if it is missing. Default `/workspace`. */
            cwd?: string;
            /** @description Variables of this session alone. They win over the sandbox's own. */
            env?: components["schemas"]["EnvironmentChanges"];
            /** @description The session's id; one is made up if it is missing. */
            id?: components["schemas"]["SessionId"];
            /** @description A label for people; it has no effect. */
            name?: string;
        };
        /** @description What a ticket is wanted for. */
        CreateTicket: {
            /** @description The path below `/v1/sandboxes/` at which the WebSocket will be opened, as it will be requested, without a query. */
            path: string;
        };
        /** @description An answer that says no more than that it was done. */
        Done: {
            /** @description Always true: failures are errors. */
            success: boolean;
            /** @description When it was done. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /** @description Variables to set (text) or to unset (`null`). */
        EnvironmentChanges: {
            [key: string]: string | null;
        };
        /**
         * @description What went wrong, as a word that programs compare.
         * @enum {string}
         */
        ErrorCode: "IS_DIRECTORY" | "NOT_DIRECTORY" | "NAME_TOO_LONG" | "INVALID_COMMAND" | "INVALID_PORT_NUMBER" | "INVALID_PORT" | "INVALID_GIT_URL" | "VALIDATION_FAILED" | "CUSTOM_DOMAIN_REQUIRED" | "INVALID_BACKUP_CONFIG" | "INVALID_MOUNT_CONFIG" | "MISSING_CREDENTIALS" | "BACKUP_EXPIRED" | "GIT_AUTH_FAILED" | "UNAUTHORIZED" | "PERMISSION_DENIED" | "COMMAND_PERMISSION_DENIED" | "READ_ONLY" | "FORBIDDEN" | "FILE_NOT_FOUND" | "COMMAND_NOT_FOUND" | "PROCESS_NOT_FOUND" | "PORT_NOT_EXPOSED" | "INVALID_TOKEN" | "GIT_REPOSITORY_NOT_FOUND" | "GIT_BRANCH_NOT_FOUND" | "CONTEXT_NOT_FOUND" | "BACKUP_NOT_FOUND" | "SANDBOX_NOT_FOUND" | "SESSION_NOT_FOUND" | "EXEC_NOT_FOUND" | "ROUTE_NOT_FOUND" | "METHOD_NOT_ALLOWED" | "PROCESS_READY_TIMEOUT" | "COMMAND_TIMEOUT" | "FILE_EXISTS" | "PORT_ALREADY_EXPOSED" | "PORT_IN_USE" | "RESOURCE_BUSY" | "SESSION_ALREADY_EXISTS" | "SANDBOX_ALREADY_EXISTS" | "PROCESS_ALREADY_EXISTS" | "EXEC_ALREADY_EXISTS" | "OPERATION_INTERRUPTED" | "SESSION_TERMINATED" | "EXEC_STDIN_CLOSED" | "SESSION_DESTROYED" | "FILE_TOO_LARGE" | "PAYLOAD_TOO_LARGE" | "UNSUPPORTED_MEDIA_TYPE" | "QUOTA_EXCEEDED" | "FILESYSTEM_ERROR" | "COMMAND_EXECUTION_ERROR" | "PROCESS_ERROR" | "PROCESS_EXITED_BEFORE_READY" | "PORT_OPERATION_ERROR" | "GIT_CLONE_FAILED" | "GIT_CHECKOUT_FAILED" | "GIT_OPERATION_FAILED" | "CODE_EXECUTION_ERROR" | "WATCH_START_ERROR" | "BACKUP_CREATE_FAILED" | "BACKUP_RESTORE_FAILED" | "BUCKET_MOUNT_ERROR" | "INTERNAL_ERROR" | "OOM_KILLED" | "UNSUPPORTED_TRANSFER_CODING" | "PYTHON_NOT_AVAILABLE" | "JAVASCRIPT_NOT_AVAILABLE" | "SERVICE_NOT_RESPONDING" | "GIT_NETWORK_ERROR" | "INTERPRETER_NOT_READY" | "CONTAINER_UNAVAILABLE" | "NO_SPACE";
        /** @description One event of a command's stream. Its SSE `id` is `STDOUT-STDERR`: the raw byte offsets up to which the streams have been sent. */
        ExecEvent: {
            /** @description The text that runs. */
            command: string;
            /** @description The command's id, to resume or cancel it by. */
            execId: components["schemas"]["ExecId"];
            /** @description The session that runs it; none for `fresh`. */
            sessionId?: components["schemas"]["SessionId"];
            /** @description When it started. */
            timestamp: components["schemas"]["Timestamp"];
            /** @enum {string} */
            type: "start";
        } | {
            /** @description The bytes in the encoding asked for. */
            data: string;
            /** @description When they were read. */
            timestamp: components["schemas"]["Timestamp"];
            /** @enum {string} */
            type: "stdout";
        } | {
            /** @description The bytes in the encoding asked for. */
            data: string;
            /** @description When they were read. */
            timestamp: components["schemas"]["Timestamp"];
            /** @enum {string} */
            type: "stderr";
        } | {
            /**
             * Format: int64
             * @description How many.
             */
            bytes: number;
            /** @description Whose bytes. */
            stream: components["schemas"]["StreamName"];
            /** @description When this was found. */
            timestamp: components["schemas"]["Timestamp"];
            /** @enum {string} */
            type: "dropped";
        } | (components["schemas"]["ExecOutcome"] & {
            /** @description When it ended. */
            timestamp: components["schemas"]["Timestamp"];
        } & {
            /** @enum {string} */
            type: "complete";
        }) | {
            /** @description The whole error as any other route would have answered it. */
            detail: components["schemas"]["ApiError"];
            /** @description What went wrong, for a person. */
            error: string;
            /** @description When it went wrong. */
            timestamp: components["schemas"]["Timestamp"];
            /** @enum {string} */
            type: "error";
        };
        /**
         * @description The name that a client gives one command, so that it can be resumed, cancelled and safely retried:
         *     1-64 characters of `A-Z a-z 0-9 _ -`.
         */
        ExecId: string;
        /** @description A command as it stands now. */
        ExecInfo: {
            /** @description The text. */
            command: string;
            /** @description The command's id. */
            execId: components["schemas"]["ExecId"];
            /** @description How it ended, once it has. */
            outcome?: components["schemas"]["ExecOutcome"];
            /** @description The session that runs it; none for `fresh`. */
            sessionId?: components["schemas"]["SessionId"];
            /** @description Where it stands. */
            state: components["schemas"]["ExecState"];
            /**
             * Format: int64
             * @description Bytes written to stderr so far.
             */
            stderrBytes: number;
            /**
             * Format: int64
             * @description Bytes written to stdout so far.
             */
            stdoutBytes: number;
        };
        /** @description Commands that wait or run. */
        ExecList: {
            /** @description The commands, in no order. */
            execs: components["schemas"]["ExecInfo"][];
        };
        /** @description How a command ended, apart from its output. */
        ExecOutcome: {
            /**
             * Format: double
             * @description Milliseconds from its start to its end.
             */
            duration: number;
            /**
             * Format: int32
             * @description The shell's own status; 128+n when signal n ended it.
             */
            exitCode: number;
            /** @description The end of the command was not seen: its shell broke off without a status. */
            interrupted?: boolean;
            /** @description Set when the memory limit killed it. */
            oom?: components["schemas"]["Oom"];
            /** @description The shell that ran it is gone (`exit`, `exec`, a crash, a kill) and the next command starts a new one with the session's state. */
            shellRestarted?: boolean;
            /** @description Set when output was dropped. */
            truncated?: components["schemas"]["Truncated"];
        };
        /** @description A command to run. */
        ExecRequest: {
            /** @description The text, as a shell reads it. Not empty, no NUL, at most 8 MiB. */
            command: string;
            /** @description Working directory for this command only. */
            cwd?: string;
            /** @description How output is written into the answer. */
            encoding?: components["schemas"]["OutputEncoding"];
            /** @description Variables for this command only; `null` unsets. */
            env?: components["schemas"]["EnvironmentChanges"];
            /**
             * @description The client's name for this command. Sending the same id again attaches to the command that has it instead
             *     of running it twice.
             */
            execId?: components["schemas"]["ExecId"];
            /**
             * @description Run in a shell of its own (`bash -c`) that no session keeps. What it leaves in the background lives on, until the
             *     sandbox ends, and belongs to no session: a program to be found again is one for `startProcess`.
             */
            fresh?: boolean;
            /**
             * @description Its stdin stays open and takes what `writeExecStdin` brings, until that or the command ends it. Not together with
             *     `stdin`.
             */
            interactive?: boolean;
            /**
             * Format: int64
             * @description Bytes kept of each output stream: the first and the last half of it. Default 64 MiB.
             */
            maxOutputBytes?: number;
            /**
             * Format: int64
             * @description Milliseconds that it may wait for earlier commands of its session. Default: no bound.
             */
            queueTimeout?: number;
            /** @description The session whose shell runs it; created with defaults if it does not exist. Default `default`. */
            sessionId?: components["schemas"]["SessionId"];
            /** @description What the command reads on stdin. Default: nothing. */
            stdin?: string;
            /**
             * Format: int64
             * @description Milliseconds after its start when the command and all its processes are killed. Default: the session's.
             */
            timeout?: number;
        };
        /** @description A command's whole result. Field order matters to no one, but output comes last on the wire because it is streamed from disk. */
        ExecResult: components["schemas"]["ExecOutcome"] & {
            /** @description The text that ran. */
            command: string;
            /** @description How `stdout` and `stderr` are written. */
            encoding: components["schemas"]["OutputEncoding"];
            /** @description The command's id. */
            execId: components["schemas"]["ExecId"];
            /** @description Some bytes were no UTF-8 and were replaced. */
            invalidUtf8?: boolean;
            /** @description The session that ran it; none for `fresh`. */
            sessionId?: components["schemas"]["SessionId"];
            /** @description What it wrote to stderr. */
            stderr: string;
            /** @description What it wrote to stdout. */
            stdout: string;
            /** @description Whether the exit code is 0. */
            success: boolean;
            /** @description When it started. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /**
         * @description Where a command stands.
         * @enum {string}
         */
        ExecState: "queued" | "running" | "finished";
        /** @description Whether something stands at a path. */
        ExistsResult: {
            /** @description Whether it exists; a link counts by what it points to. */
            exists: boolean;
            /** @description The path as asked. */
            path: string;
            /** @description Always true: failures are errors. */
            success: boolean;
            /** @description When it was asked. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /** @description A port that is exposed. */
        ExposedPort: {
            /** @description When it was exposed. */
            createdAt: components["schemas"]["Timestamp"];
            /** @description The label given when it was exposed. */
            name?: string;
            /**
             * Format: int32
             * @description The port.
             */
            port: number;
            /** @description Whether the URL is in force. */
            status: components["schemas"]["PortStatus"];
            /** @description The secret in `url`. */
            token: string;
            /** @description Where it can be reached, by everyone who knows this. */
            url: string;
        };
        /** @description The exposed ports of a sandbox, by number. */
        ExposedPorts: {
            /** @description The ports. */
            ports: components["schemas"]["ExposedPort"][];
        };
        /** @description Which port to expose, and how. */
        ExposePort: {
            /**
             * @description The domain of the URL, with its port where it is not the usual one. Default: the server's preview domain, or the
             *     name by which it was called if that is `localhost`.
             */
            hostname?: string;
            /** @description A label for people; it has no effect. */
            name?: string;
            /**
             * Format: int32
             * @description The port, 1024 to 65535.
             */
            port: number;
            /**
             * @description What to do if the port is exposed already. False, which is the default: refuse. True: it keeps its URL and gets
             *     the `name` that is given; with another `token` it gets a new URL, and the old one is dead at once.
             */
            replace?: boolean;
            /**
             * @description 1-16 characters of `a-z 0-9 _`, used as they are. It is all that keeps strangers out: who tries many is slowed
             *     down, but a short one is guessed in a few tries. No other port of the sandbox may have it. Random characters are
             *     appended only where another account has the same id, port and token. Default: 16 random characters.
             */
            token?: string;
        };
        /** @description The answer to a change of one path. */
        FileChanged: {
            /** @description Where it is now, after a rename or move. */
            newPath?: string;
            /** @description The path as asked. */
            path: string;
            /** @description Always true: failures are errors. */
            success: boolean;
            /** @description When it was done. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /**
         * @description How a file's content is written into JSON by the caller.
         * @enum {string}
         */
        FileEncoding: "utf-8" | "base64";
        /** @description One event of a file's stream. */
        FileEvent: {
            /** @description How the chunks are written. */
            encoding: components["schemas"]["FileEncoding"];
            /** @description Whether the content is no text: not UTF-8, or with NUL. Files over 16 MiB are judged by their beginning. */
            isBinary: boolean;
            /** @description Media type by content and name. */
            mimeType: string;
            /**
             * Format: int64
             * @description Bytes.
             */
            size: number;
            /** @enum {string} */
            type: "metadata";
        } | {
            /** @description Content. */
            data: string;
            /** @enum {string} */
            type: "chunk";
        } | {
            /**
             * Format: int64
             * @description Bytes of the file that were sent.
             */
            bytesRead: number;
            /** @enum {string} */
            type: "complete";
        } | {
            /** @description The whole error as any other route would have answered it. */
            detail: components["schemas"]["ApiError"];
            /** @description What went wrong, for a person. */
            error: string;
            /** @enum {string} */
            type: "error";
        };
        /** @description One entry of a listing. */
        FileInfo: {
            /** @description Its path from the root. */
            absolutePath: string;
            /** @description Permissions as `ls` writes them, without the type: `rw-r--r--`. */
            mode: string;
            /** @description When its content last changed. */
            modifiedAt: components["schemas"]["Timestamp"];
            /** @description Its name. Bytes that are no UTF-8 are replaced. */
            name: string;
            /** @description The relative path's bytes in base64, where they are no UTF-8: no call can name it then, a command can. */
            pathBytes?: string;
            /** @description What the sandbox's user may do. */
            permissions: components["schemas"]["Permissions"];
            /** @description Its path from the listed directory. */
            relativePath: string;
            /**
             * Format: int64
             * @description Bytes.
             */
            size: number;
            /** @description What it is. */
            type: components["schemas"]["FileType"];
        };
        /**
         * @description What a directory entry is.
         * @enum {string}
         */
        FileType: "file" | "directory" | "symlink" | "other";
        /** @description A user name and a password or token. Its `Debug` form shows neither. */
        GitAuth: {
            /** @description Password or token. */
            password: string;
            /** @description Default: the URL's own, else `x-access-token`, which hosts take beside a token. */
            username?: string;
        };
        /**
         * @description Clone a repository with the sandbox's own git.
         *
         *     Its `Debug` form shows neither `auth` nor the URL, which may hold a password too.
         */
        GitCheckout: {
            /** @description Who to be for the repository's host; for http and https. It is written nowhere. */
            auth?: components["schemas"]["GitAuth"];
            /** @description The branch or tag to check out. Default: the remote's own. */
            branch?: string;
            /**
             * Format: int64
             * @description Milliseconds after which git is killed with all its processes and what it had made is removed. Default 600000.
             */
            cloneTimeoutMs?: number;
            /**
             * Format: int32
             * @description Fetch only so many of the newest commits of the one branch. Default: all.
             */
            depth?: number;
            /**
             * @description The client's name for this call, as of a command: sending the same id again attaches to the call that has it, and
             *     cancelling the command of this id ends it.
             */
            execId?: components["schemas"]["ExecId"];
            /**
             * @description Leave objects out until they are needed (a partial clone): `blob:none`, `blob:limit=1m`, `tree:0`, as git's
             *     `--filter`. Servers that know no filters send everything.
             */
            filter?: string;
            /**
             * @description `https`, `http`, `git` or `ssh` URL, or `user@host:path` for ssh. A user name and password in an http(s) URL are
             *     taken out of it and handed to git as those of `auth` are. For ssh the sandbox's own `~/.ssh` counts: its keys, its
             *     `known_hosts`, its `config`; nobody answers a prompt.
             */
            repoUrl: string;
            /** @description The session whose exported variables and working directory are its start point. */
            sessionId?: components["schemas"]["SessionId"];
            /**
             * @description Where the working tree goes: a directory that is empty or does not exist. Default: the repository's name, below
             *     `/workspace` or the session's working directory.
             */
            targetDir?: string;
        };
        /** @description A repository that was cloned. */
        GitCheckoutResult: {
            /** @description The branch or tag that is checked out. */
            branch: string;
            /** @description The URL without a user name and password. */
            repoUrl: string;
            /** @description Always true: failures are errors. */
            success: boolean;
            /** @description The working tree, from the root. */
            targetDir: string;
            /** @description When it was done. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /** @description The answer of `GET /health`. */
        Health: {
            /** @description Always `ok`: a server that is not does not answer. */
            status: string;
            /** @description The server's release. */
            version: string;
        };
        /** @description Seconds as a number, or text such as `30s`, `5m`, `1h`. */
        IdleTime: number | string;
        /** @description An image as it stands now. */
        ImageInfo: {
            /** @description What names its content, where it is there. */
            key?: string;
            /** @description Its name, as `image` of a new sandbox takes it. */
            name: string;
            /**
             * Format: int64
             * @description How many sandboxes of this server are made of it.
             */
            sandboxes: number;
            /**
             * Format: int64
             * @description Bytes that building it added on disk, once for all sandboxes; none for what is not built.
             */
            size?: number;
            /** @description Where it stands. */
            status: components["schemas"]["ImageStatus"];
        };
        /** @description The images, by name. */
        ImageList: {
            /** @description The images. */
            images: components["schemas"]["ImageInfo"][];
        };
        /** @description The answer to removing what was built for an image. */
        ImageRemoved: {
            /** @description The image. */
            name: string;
            /** @description False if there was nothing to remove. */
            removed: boolean;
            /** @description Always true: failures are errors. */
            success: boolean;
            /** @description When it was done. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /**
         * @description Where an image stands.
         * @enum {string}
         */
        ImageStatus: "ready" | "outdated" | "building" | "unbuilt";
        /** @description What a sandbox's code may ask of the kernel beyond what every program needs. A missing field takes its default. */
        Isolation: {
            /**
             * @description Asynchronous file I/O by libaio (`io_setup`): all users of the machine share a fixed number of requests.
             *     Default false.
             */
            asyncIo?: boolean;
            /**
             * @description Debuggers: `ptrace`, `process_vm_readv`, `process_vm_writev`, `pidfd_getfd`, on processes of the same user.
             *     Default true.
             */
            debugging?: boolean;
            /** @description Sockets for `ping`; what they receive is outside the memory limit. Default false. */
            ping?: boolean;
            /** @description The kernel's lists of the sandbox's own sockets (`NETLINK_SOCK_DIAG`), as `ss` shows them. Default true. */
            socketLists?: boolean;
        };
        /** @description How a process is to end. */
        KillProcess: {
            /**
             * @description A name as in signal(7), `SIGTERM` or `TERM`, in either case. Default `SIGTERM`.
             *
             *     TERM, INT, QUIT, ABRT and KILL end the process: what has not ended 5 s later is killed, and the answer comes
             *     when nothing is left. Any other signal is only sent.
             */
            signal?: string;
        };
        Labels: {
            [key: string]: string;
        };
        /** @description Output that came between two runs. */
        LateOutput: {
            /**
             * Format: int64
             * @description Bytes before these that were dropped.
             */
            dropped?: number;
            /** @description The last 16 KiB to stderr, as text. */
            stderr?: string;
            /** @description The last 16 KiB to stdout, as text. */
            stdout?: string;
        };
        /** @description What a sandbox may use. A missing field takes the server's default. */
        Limits: {
            /**
             * Format: double
             * @description CPUs, fractions allowed: 0.5 is half of one.
             */
            cpu?: number;
            /** @description Disk for everything the sandbox writes, in bytes. */
            disk?: components["schemas"]["ByteSize"];
            /** @description Memory in bytes. */
            memory?: components["schemas"]["ByteSize"];
            /**
             * Format: int64
             * @description Open files of each process, as soft and as hard limit.
             */
            openFiles?: number;
            /**
             * Format: int64
             * @description Processes and threads.
             */
            pids?: number;
        };
        /** @description List a directory. */
        ListFiles: {
            /** @description Also names that begin with a dot. */
            includeHidden?: boolean;
            /** @description The directory. */
            path: string;
            /** @description Descend into directories; links are listed, not followed. */
            recursive?: boolean;
            /** @description The session whose working directory a relative path starts from. */
            sessionId?: components["schemas"]["SessionId"];
        };
        /** @description A directory's entries. */
        ListFilesResult: {
            /** @description How many. */
            count: number;
            /** @description The entries by name. */
            files: components["schemas"]["FileInfo"][];
            /** @description The path as asked. */
            path: string;
            /** @description Always true: failures are errors. */
            success: boolean;
            /** @description When it was listed. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /** @description The line that was waited for. */
        LogLine: {
            /** @description The line without its end; at most 64 KiB around the text. */
            line: string;
            /** @description Where it was written. */
            stream: components["schemas"]["StreamName"];
        };
        /**
         * @description Why output could not be kept.
         * @enum {string}
         */
        LostReason: "diskFull" | "diskFailed";
        /** @description Make a directory. */
        Mkdir: {
            /**
             * Format: int32
             * @description Permission bits, 0 to 0o777 as a number. Default 0o755.
             */
            mode?: number;
            /** @description The directory. */
            path: string;
            /** @description Make missing parents too, and accept that it exists. */
            recursive?: boolean;
            /** @description The session whose working directory a relative path starts from. */
            sessionId?: components["schemas"]["SessionId"];
        };
        /** @description Rename or move a file or directory. */
        MoveFile: {
            /** @description Where it goes. `move` into an existing directory keeps the name; `rename` refuses a directory there. */
            newPath: string;
            /** @description What is moved. */
            path: string;
            /** @description The session whose working directory relative paths start from. */
            sessionId?: components["schemas"]["SessionId"];
        };
        /**
         * @description What a sandbox can reach.
         * @enum {string}
         */
        Network: "loopback" | "host";
        /** @description The memory limit that the command ran into. */
        Oom: {
            /**
             * Format: int64
             * @description The sandbox's memory limit in bytes.
             */
            limit: number;
            /**
             * Format: int64
             * @description The most that the sandbox had used, in bytes.
             */
            peak: number;
        };
        /**
         * @description How bytes of a command's output are written into JSON.
         * @enum {string}
         */
        OutputEncoding: "utf8" | "base64";
        /** @description A path alone. */
        PathRequest: {
            /** @description The file or directory. */
            path: string;
            /** @description The session whose working directory a relative path starts from. */
            sessionId?: components["schemas"]["SessionId"];
        };
        /** @description What the sandbox's user may do with a file. */
        Permissions: {
            /** @description May execute it, or enter the directory. */
            executable: boolean;
            /** @description May read it. */
            readable: boolean;
            /** @description May write it. */
            writable: boolean;
        };
        /**
         * @description What an open port must do to count as ready.
         * @enum {string}
         */
        PortMode: "http" | "tcp";
        /** @description The port is ready. */
        PortReady: {
            /**
             * Format: int32
             * @description The port.
             */
            port: number;
            /**
             * Format: int32
             * @description For `http`: what it answered.
             */
            status?: number;
        };
        /**
         * @description How an exposed port stands.
         * @enum {string}
         */
        PortStatus: "active";
        /** @description Whether a token is a port's. */
        PortTokenValidity: {
            /** @description True only if the port is exposed and has this token. */
            valid: boolean;
        };
        /** @description The answer to taking a port back. */
        PortUnexposed: {
            /**
             * Format: int32
             * @description The port.
             */
            port: number;
            /** @description Always true: failures are errors. */
            success: boolean;
            /** @description When it was done. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /** @description How many processes something was done to. */
        ProcessCount: {
            /**
             * Format: int64
             * @description How many.
             */
            count: number;
            /** @description Always true: failures are errors. */
            success: boolean;
            /** @description When it was done. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /** @description How a process ended. */
        ProcessExit: {
            /**
             * Format: int32
             * @description Its exit code; 128+n when signal n ended it.
             */
            exitCode: number;
            /** @description How it ended. */
            status: components["schemas"]["ProcessStatus"];
        };
        /**
         * @description A process's name: 1-64 characters of `A-Z a-z 0-9 _ . -`, not `.` or `..`, which are lost when a URL is
         *     normalised.
         */
        ProcessId: string;
        /** @description A process as it stands now. */
        ProcessInfo: {
            /** @description The text that runs. */
            command: string;
            /** @description When it ended. */
            endTime?: components["schemas"]["Timestamp"];
            /** @description Why it could not be run, when the status is `error`. */
            error?: string;
            /**
             * Format: int32
             * @description Its exit code, once it has ended; 128+n when signal n ended it.
             */
            exitCode?: number;
            /** @description Its name. */
            id: components["schemas"]["ProcessId"];
            /** @description Set when the memory limit killed it. */
            oom?: components["schemas"]["Oom"];
            /**
             * Format: int32
             * @description The process id of its shell, as the sandbox counts; that of the last run after its end.
             */
            pid?: number;
            /** @description Whether it is started again after its end. */
            restart?: components["schemas"]["Restart"];
            /**
             * Format: int64
             * @description How often it was started again.
             */
            restarts?: number;
            /** @description The session that it was started in, if one was named. */
            sessionId?: components["schemas"]["SessionId"];
            /** @description When it was started, the last time. */
            startTime: components["schemas"]["Timestamp"];
            /** @description Where it stands. */
            status: components["schemas"]["ProcessStatus"];
            /**
             * Format: int64
             * @description Bytes written to stderr so far.
             */
            stderrBytes: number;
            /**
             * Format: int64
             * @description Bytes written to stdout so far.
             */
            stdoutBytes: number;
            /** @description Its timeout ended it. */
            timedOut?: boolean;
        };
        /** @description The processes of a sandbox, by age. */
        ProcessList: {
            /** @description The processes. */
            processes: components["schemas"]["ProcessInfo"][];
        };
        /**
         * @description One event of a process's log. Its SSE `id` is `STDOUT-STDERR`: the raw byte offsets up to which the streams have been
         *     sent.
         */
        ProcessLogEvent: {
            /** @description The text that runs. */
            command: string;
            /** @description The process. */
            processId: components["schemas"]["ProcessId"];
            /** @description Where it stood. */
            status: components["schemas"]["ProcessStatus"];
            /** @description When this was sent. */
            timestamp: components["schemas"]["Timestamp"];
            /** @enum {string} */
            type: "process_info";
        } | {
            /** @description The bytes in the encoding asked for. */
            data: string;
            /** @description The process. */
            processId: components["schemas"]["ProcessId"];
            /** @description When this was sent. */
            timestamp: components["schemas"]["Timestamp"];
            /** @enum {string} */
            type: "stdout";
        } | {
            /** @description The bytes in the encoding asked for. */
            data: string;
            /** @description The process. */
            processId: components["schemas"]["ProcessId"];
            /** @description When this was sent. */
            timestamp: components["schemas"]["Timestamp"];
            /** @enum {string} */
            type: "stderr";
        } | {
            /**
             * Format: int64
             * @description How many.
             */
            bytes: number;
            /** @description The process. */
            processId: components["schemas"]["ProcessId"];
            /** @description Whose bytes. */
            stream: components["schemas"]["StreamName"];
            /** @description When this was found. */
            timestamp: components["schemas"]["Timestamp"];
            /** @enum {string} */
            type: "dropped";
        } | {
            /**
             * Format: int32
             * @description Its exit code; 128+n when signal n ended it.
             */
            exitCode: number;
            /** @description The process. */
            processId: components["schemas"]["ProcessId"];
            /** @description How it ended. */
            status: components["schemas"]["ProcessStatus"];
            /** @description When it ended. */
            timestamp: components["schemas"]["Timestamp"];
            /** @enum {string} */
            type: "exit";
        } | {
            /** @description The whole error as any other route would have answered it. */
            detail: components["schemas"]["ApiError"];
            /** @description What went wrong, for a person. */
            error: string;
            /** @description The process. */
            processId: components["schemas"]["ProcessId"];
            /** @description When it went wrong. */
            timestamp: components["schemas"]["Timestamp"];
            /** @enum {string} */
            type: "error";
        };
        /** @description What a process has written and what of it is kept. */
        ProcessLogs: {
            /** @description How `stdout` and `stderr` are written. */
            encoding: components["schemas"]["OutputEncoding"];
            /** @description Some bytes were no UTF-8 and were replaced. */
            invalidUtf8?: boolean;
            /** @description The process. */
            processId: components["schemas"]["ProcessId"];
            /** @description What it wrote to stderr. */
            stderr: string;
            /** @description What it wrote to stdout. */
            stdout: string;
            /** @description Bytes that are no longer kept, per stream: those before the ones in this answer. */
            truncated?: components["schemas"]["Truncated"];
        };
        /**
         * @description Where a process stands.
         * @enum {string}
         */
        ProcessStatus: "starting" | "running" | "completed" | "failed" | "killed" | "error";
        /** @description Read a whole file into one answer. */
        ReadFile: {
            /** @description Default: text where the content is UTF-8 without NUL, else base64. Text asked of what is no UTF-8 is base64. */
            encoding?: components["schemas"]["FileEncoding"];
            /** @description The file. */
            path: string;
            /** @description The session whose working directory a relative path starts from. */
            sessionId?: components["schemas"]["SessionId"];
        };
        /** @description A file's content. */
        ReadFileResult: {
            /** @description The content. */
            content: string;
            /** @description How `content` is written. */
            encoding: components["schemas"]["FileEncoding"];
            /** @description Whether the content is no text: not UTF-8, or with NUL. */
            isBinary: boolean;
            /** @description Media type by content and name. */
            mimeType: string;
            /** @description The path as asked. */
            path: string;
            /**
             * Format: int64
             * @description Bytes.
             */
            size: number;
            /** @description Always true: failures are errors. */
            success: boolean;
            /** @description When it was read. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /**
         * @description Whether a process is started again after its end.
         * @enum {string}
         */
        Restart: "never" | "always";
        /** @description Code to run. */
        RunCodeRequest: {
            /** @description The code, at most 8 MiB. */
            code: string;
            /**
             * @description The context that runs it. Default: the language's own of the session, or of the sandbox where no session is named;
             *     its first run makes it.
             */
            contextId?: components["schemas"]["ContextId"];
            /** @description Variables for this run only; `null` unsets. */
            envVars?: components["schemas"]["EnvironmentChanges"];
            /** @description Default `python`. With a context it may be left out, and must be the context's if it is given. */
            language?: components["schemas"]["CodeLanguage"];
            /**
             * @description The client's name for this run. Sending the same id again attaches to the run that has it instead of running the
             *     code twice.
             */
            runId?: components["schemas"]["RunId"];
            /**
             * @description The session whose context this is without `contextId`: it follows the session's exported variables and working
             *     directory (contract S14).
             */
            sessionId?: components["schemas"]["SessionId"];
            /**
             * Format: int64
             * @description Milliseconds from its start until it is interrupted. Default: the context's.
             */
            timeout?: number;
        };
        /** @description A run's whole result. */
        RunCodeResult: components["schemas"]["RunOutcome"] & {
            /** @description The code that ran. */
            code: string;
            /** @description The context that ran it. */
            contextId: components["schemas"]["ContextId"];
            /** @description What it wrote. */
            logs: components["schemas"]["CodeLogs"];
            /** @description What it shows, in order. */
            results: components["schemas"]["CodeResult"][];
            /** @description The run's id. */
            runId: components["schemas"]["RunId"];
            /** @description When it started. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /** @description The name that a client gives one run of code, as `ExecId` for commands. */
        RunId: string;
        /** @description Where a run stands. */
        RunInfo: {
            /** @description The context that runs it. */
            contextId: components["schemas"]["ContextId"];
            /** @description Whether it has ended. */
            finished: boolean;
            /** @description How it ended; missing while it runs, and where it ended with an error of the API. */
            outcome?: components["schemas"]["RunOutcome"];
            /** @description The run's id. */
            runId: components["schemas"]["RunId"];
        };
        /** @description How a run ended, apart from its output. */
        RunOutcome: {
            /** @description The context's interpreter was, or will be, started anew: what earlier runs left in it is lost. */
            contextRestarted?: boolean;
            /**
             * Format: double
             * @description Milliseconds from its start to its end.
             */
            duration: number;
            /** @description Why the code ended before its end. */
            error?: components["schemas"]["CodeError"];
            /**
             * Format: int64
             * @description How many runs have begun in the context, this one included.
             */
            executionCount: number;
            /** @description What code of earlier runs in the context wrote since the last run's end, as a thread or a timer does. */
            lateOutput?: components["schemas"]["LateOutput"];
            /** @description Set when the memory limit killed the interpreter. */
            oom?: components["schemas"]["Oom"];
            /**
             * Format: int64
             * @description Results that were dropped: of all together the first 64 MiB are kept.
             */
            resultsDropped?: number;
            /** @description Bytes of output that were dropped: of each stream the first 64 MiB are kept. */
            truncated?: components["schemas"]["Truncated"];
        };
        /** @description The answer to destroying a sandbox. */
        SandboxDestroyed: {
            /** @description The id that is free again. */
            sandboxId: components["schemas"]["SandboxId"];
            /** @description Always true: failures are errors. */
            success: boolean;
            /** @description When it was done. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /** @description One entry of a sandbox's event log (contract L08). */
        SandboxEvent: {
            /** @description Who caused it: `api`, `server`, `agent`, `kernel`. */
            actor: string;
            /** @description More, by kind. */
            detail?: unknown;
            /** @description What happened: `created`, `started`, `stopped`, `destroyed`, `oom`, `shellRestarted`, `restorePartDropped`, … */
            kind: string;
            /** @description Why. */
            reason: string;
            /**
             * Format: int64
             * @description Counts up within one sandbox.
             */
            seq: number;
            /** @description When. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /** @description A sandbox's events, oldest first. */
        SandboxEvents: {
            /** @description The events. */
            events: components["schemas"]["SandboxEvent"][];
        };
        /**
         * @description A sandbox's id: 1-63 printable ASCII characters without blanks, `/` and `%`, no leading or trailing `-`, and
         *     none of `www api admin root system`.
         */
        SandboxId: string;
        /** @description A sandbox as it stands now. */
        SandboxInfo: {
            /** @description When it was made. */
            createdAt: components["schemas"]["Timestamp"];
            /** @description Its id. */
            id: components["schemas"]["SandboxId"];
            /** @description Its image. */
            image: string;
            /** @description What its code may ask of the kernel, every default filled in. */
            isolation?: components["schemas"]["Isolation"];
            /** @description Whether it never sleeps. */
            keepAlive: boolean;
            /** @description Its labels. */
            labels: {
                [key: string]: string;
            };
            /** @description When its status last changed. */
            lastChange: components["schemas"]["Timestamp"];
            /** @description The limits in force. */
            limits: components["schemas"]["Limits"];
            /** @description Its network. */
            network: components["schemas"]["Network"];
            /** @description Limits that hold nothing here, by their names: the server runs without control groups, or without disks of its own. */
            notEnforced?: string[];
            /** @description What keeps it from working as it should; absent where nothing does. */
            problem?: string;
            /** @description Idle time until it sleeps, in seconds. */
            sleepAfter: components["schemas"]["IdleTime"];
            /** @description Where it stands. */
            status: components["schemas"]["SandboxStatus"];
        };
        /** @description The caller's sandboxes, by age. */
        SandboxList: {
            /** @description The sandboxes. */
            sandboxes: components["schemas"]["SandboxInfo"][];
        };
        /**
         * @description Where a sandbox stands in its life.
         * @enum {string}
         */
        SandboxStatus: "starting" | "running" | "stopped" | "destroying" | "quarantined";
        /** @description The answer to stopping a sandbox. */
        SandboxStopped: {
            /** @description The sandbox in which nothing runs. */
            sandboxId: components["schemas"]["SandboxId"];
            /** @description Always true: failures are errors. */
            success: boolean;
            /** @description When it was done. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /** @description The answer to deleting a session. */
        SessionDeleted: {
            /**
             * Format: int64
             * @description How many processes were ended that its commands had left in the background; none if there were none.
             */
            endedProcesses?: number;
            /** @description The id that is free again. */
            sessionId: components["schemas"]["SessionId"];
            /** @description Always true: failures are errors. */
            success: boolean;
            /** @description When it was done. */
            timestamp: components["schemas"]["Timestamp"];
        };
        /**
         * @description A session's id: 1-128 bytes of UTF-8 without control characters and `/`; not `.` or `..`, which are lost
         *     when a URL is normalised. The default session's id is `default`.
         */
        SessionId: string;
        /** @description A session as it stands now. */
        SessionInfo: {
            /** @description Whether a command runs in it now. */
            busy: boolean;
            /** @description When the session was made. */
            createdAt: components["schemas"]["Timestamp"];
            /** @description Working directory as of the last completed command. */
            cwd: string;
            /** @description The session's id. */
            id: components["schemas"]["SessionId"];
            /** @description The label given at creation. */
            name?: string;
            /** @description Commands that wait behind the running one. */
            waiting: number;
        };
        /** @description All sessions of a sandbox, by age. */
        SessionList: {
            /** @description The sessions. */
            sessions: components["schemas"]["SessionInfo"][];
        };
        /** @description Variables to change in a sandbox or in one session. */
        SetEnv: {
            /**
             * @description Text sets, `null` unsets. In a shell the variable is an ordinary exported one from then on, with this very value,
             *     whatever the session had declared it to be. Those that the shell makes itself (`PWD`, `UID`, `RANDOM`, `_`, ...) are
             *     refused.
             */
            env: components["schemas"]["EnvironmentChanges"];
        };
        /** @description A process to start. */
        StartProcess: {
            /**
             * @description Forget the process 5 minutes after its end; else it is kept until it is cleaned up, or crowded out by younger
             *     ones. Default true.
             */
            autoCleanup?: boolean;
            /** @description The text, as a shell reads it: it is run by `bash -c`. Not empty, no NUL, at most 8 MiB. */
            command: string;
            /** @description Its working directory, relative to the session's. */
            cwd?: string;
            /** @description Variables for this process only; `null` unsets. */
            env?: components["schemas"]["EnvironmentChanges"];
            /** @description Its stdin stays open and takes what is written to it later. Not together with `stdin` and `restart`. */
            interactive?: boolean;
            /**
             * Format: int64
             * @description Bytes kept of each output stream: the last ones. At least 128 KiB. Default 16 MiB.
             */
            maxLogBytes?: number;
            /** @description The process's name; no other process of the sandbox may have it. One is made up if it is missing. */
            processId?: components["schemas"]["ProcessId"];
            /** @description Whether it is started again after its end. */
            restart?: components["schemas"]["Restart"];
            /** @description The session whose exported variables and working directory it starts with (contract S14). Default `default`. */
            sessionId?: components["schemas"]["SessionId"];
            /** @description What it reads on stdin. Default: nothing. Each restart reads it from the beginning. */
            stdin?: string;
            /**
             * Format: int64
             * @description Milliseconds after its start when the process and all that it started are killed. Default: none.
             */
            timeout?: number;
        };
        /** @description HTTP statuses, both ends included. */
        StatusRange: {
            /**
             * Format: int32
             * @description The highest.
             */
            max: number;
            /**
             * Format: int32
             * @description The lowest.
             */
            min: number;
        };
        /** @description How to stop a sandbox. */
        StopSandbox: {
            /** @description Default `SIGTERM`. */
            signal?: components["schemas"]["StopSignal"];
        };
        /**
         * @description How what runs in a sandbox is ended when it is stopped.
         * @enum {string}
         */
        StopSignal: "SIGTERM" | "SIGINT" | "SIGKILL";
        /**
         * @description One of a command's output streams.
         * @enum {string}
         */
        StreamName: "stdout" | "stderr";
        /** @description A ticket: good for one WebSocket at one path, within 30 s. */
        Ticket: {
            /** @description Until when it can be used. */
            expiresAt: components["schemas"]["Timestamp"];
            /** @description What goes into the URL as `?ticket=…`. */
            ticket: string;
        };
        /**
         * Format: date-time
         * @description A moment, written as `2026-01-31T12:00:00.000Z`.
         * @example 2026-01-31T12:00:00.000Z
         */
        Timestamp: string;
        /** @description Bytes that did not fit `maxOutputBytes`, per stream. */
        Truncated: {
            /** @description Why bytes are gone that were within the bound; none if all are gone because of it. */
            reason?: components["schemas"]["LostReason"];
            /**
             * Format: int64
             * @description Bytes dropped from the middle of stderr.
             */
            stderr?: number;
            /**
             * Format: int64
             * @description Bytes dropped from the middle of stdout.
             */
            stdout?: number;
        };
        /** @description A token to compare. */
        ValidatePortToken: {
            /** @description What came in a URL. */
            token: string;
        };
        /** @description Waiting for a process's end. */
        WaitForExit: {
            /**
             * Format: int64
             * @description Milliseconds to wait. Default: no bound.
             */
            timeout?: number;
        };
        /** @description Waiting for a text in a process's output. */
        WaitForLog: {
            /** @description What a line must contain, within one line. Not empty, at most 4096 bytes. */
            text: string;
            /**
             * Format: int64
             * @description Milliseconds to wait. Default: no bound.
             */
            timeout?: number;
        };
        /** @description Waiting for a port of the sandbox. */
        WaitForPort: {
            /**
             * Format: int64
             * @description For `http`: the most milliseconds between two attempts. Default 500.
             */
            interval?: number;
            /** @description When it counts as ready. Default `http`. */
            mode?: components["schemas"]["PortMode"];
            /** @description For `http`: what is asked for. Default `/`. */
            path?: string;
            /**
             * Format: int32
             * @description The port on the sandbox's loopback.
             */
            port: number;
            /** @description For `http`: the statuses that count. Default 200 to 399. */
            status?: components["schemas"]["StatusRange"];
            /**
             * Format: int64
             * @description Milliseconds to wait. Default: no bound.
             */
            timeout?: number;
        };
        /** @description Write a whole file from one request. */
        WriteFile: {
            /** @description The content. */
            content: string;
            /** @description How `content` is written. */
            encoding?: components["schemas"]["FileEncoding"];
            /**
             * Format: int32
             * @description Permission bits, 0 to 0o777 as a number. Default: an existing file keeps its own, a new one gets 0o644.
             */
            mode?: number;
            /** @description The file; missing parent directories are created. */
            path: string;
            /** @description The session whose working directory a relative path starts from. */
            sessionId?: components["schemas"]["SessionId"];
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
