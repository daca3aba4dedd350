"""What the generated requests are, and what every answer must be, beyond what the document itself can say."""

import json

import schemathesis

SANDBOXES = ["fuzz-a", "fuzz-b"]
ERROR_FIELDS = {"code", "message", "context", "suggestion", "httpStatus", "timestamp"}


def plausible(text):
    """Whether a sandbox may be called this: printable ASCII without blanks, `/` and `%`, not too long."""
    return (
        isinstance(text, str)
        and 1 <= len(text) <= 63
        and all("!" <= letter <= "~" and letter not in "/%" for letter in text)
        and not text.startswith("-")
        and not text.endswith("-")
    )


@schemathesis.hook
def map_path_parameters(ctx, path_parameters):
    """Valid ids become one of a few, so that requests meet what earlier ones left; invalid ones stay as they are."""
    if path_parameters and plausible(path_parameters.get("id")):
        chosen = sum(path_parameters["id"].encode()) % len(SANDBOXES)
        return {**path_parameters, "id": SANDBOXES[chosen]}
    # It is fetched from the package index, which takes longer than a request of the run may.
    if path_parameters and path_parameters.get("name") == "python":
        return {**path_parameters, "name": "host"}
    return path_parameters


@schemathesis.hook
def map_body(ctx, body):
    """No command and no sandbox may be without bounds: the run is to end, on a machine that others use too."""
    if not isinstance(body, dict):
        return body
    operation = ctx.operation.definition.raw.get("operationId")
    if operation in ("exec", "execStream") and isinstance(body.get("command"), str):
        return {**body, "timeout": body["timeout"] if bounded(body.get("timeout")) else 2000}
    if operation == "gitCheckout":
        limit = body.get("cloneTimeoutMs")
        return {**body, "cloneTimeoutMs": limit if bounded(limit) else 2000}
    return body


def bounded(timeout):
    """A generated timeout that stays: too small to hurt, or not a timeout at all, which the server has to say."""
    return timeout is not None and not (isinstance(timeout, int) and timeout > 2000)


@schemathesis.check
def x01_errors_have_one_shape_and_are_never_internal(ctx, response, case):
    """X01, X03: a failure is the one JSON object, its status is the answer's, and none is a fault of the server."""
    if response.status_code < 400 or not response.content:
        return
    error = response.json()
    missing = ERROR_FIELDS - error.keys()
    assert not missing, f"the error lacks {sorted(missing)}"
    assert error["httpStatus"] == response.status_code, f"httpStatus is {error['httpStatus']}"
    assert error["message"], "the error has no message"
    assert error["code"] != "INTERNAL_ERROR", f"a fault of the server: {error}"


# The last event of each kind of stream, or an error.
LAST = {
    "execStream": "complete",
    "resumeExecStream": "complete",
    "readFileStream": "complete",
    "streamProcessLogs": "exit",
    "runCodeStream": "execution_complete",
    "resumeRunStream": "execution_complete",
}
# Streams whose events say by a byte offset per stream how far they reach.
BY_OFFSETS = {"execStream", "resumeExecStream", "streamProcessLogs"}


@schemathesis.check
def s12_streams_are_events_with_an_end(ctx, response, case):
    """S12: every event is JSON with a type, each exec event says up to where it reaches, and the last one is an end."""
    operation = case.operation.definition.raw.get("operationId")
    if operation not in LAST or response.status_code != 200:
        return
    events = [event for event in response.text.split("\n\n") if event and not event.startswith(":")]
    kinds = []
    for event in events:
        fields = dict(line.split(": ", 1) for line in event.split("\n"))
        kinds.append(json.loads(fields["data"])["type"])
        if operation in BY_OFFSETS:
            stdout, stderr = fields["id"].split("-")
            assert stdout.isdigit() and stderr.isdigit(), f"the id of {event}"
    assert kinds, "a stream without an event"
    assert kinds[-1] in (LAST[operation], "error"), f"a stream that ends with {kinds[-1]}"
