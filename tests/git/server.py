#!/usr/bin/env python3
"""A git host for tests: git's own http-backend behind real HTTP or HTTPS, on loopback. Needs python3, git and openssl.

    server.py ROOT [--port PORT] [--tls]

serves the bare repositories below ROOT. The first part of a path says how the host behaves:

    /open/R.git     to everyone
    /private/R.git  to user "me" with password $GIT_PASSWORD (default "s3cret-pass")
    /gate/R.git     as private, but what comes with the password waits until this program is sent a line on stdin
    /echo/R.git     refuses with 403, and says in plain text with what it was called
    /moved/R.git    sends the caller to $GIT_MOVED_TO/R.git
    /busy/R.git     answers 503
    /page/R.git     answers with a web page
    /slow/R.git     never answers
    /break/R.git    breaks off in the midst of its answer

It prints "listening PORT", with --tls also "ca FILE" before it, and one line for each request: "METHOD PATH USER".
"""

import argparse
import base64
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USER, PASSWORD = "me", os.environ.get("GIT_PASSWORD", "s3cret-pass")
MOVED_TO = os.environ.get("GIT_MOVED_TO", "")
gate = threading.Semaphore(0)
printing = threading.Lock()


def say(line):
    with printing:
        print(line, flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root = ""

    def log_message(self, *_):
        pass

    def answer(self, status, text="", kind="text/plain", **headers):
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def credentials(self):
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return "", ""
        user, _, password = base64.b64decode(value).decode().partition(":")
        return user, password

    def do(self):
        user, password = self.credentials()
        say(f"{self.command} {self.path} {user or '-'}")
        _, behaviour, *rest = self.path.split("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        known = (user, password) == (USER, PASSWORD)
        if behaviour in ("private", "gate", "echo") and not (known or behaviour == "echo" and user):
            self.answer(401, "who are you?\n", WWW_Authenticate='Basic realm="tests"')
        elif behaviour == "echo":
            self.answer(403, f"you said {user} {password} {self.headers['Authorization']}\n")
        elif behaviour == "moved":
            self.answer(302, Location=f"{MOVED_TO}/{'/'.join(rest)}")
        elif behaviour == "busy":
            self.answer(503, "not now\n")
        elif behaviour == "page":
            self.answer(200, "<!doctype html>\n<title>welcome</title>\n", "text/html")
        elif behaviour == "slow":
            threading.Event().wait()
        else:
            if behaviour == "gate":
                gate.acquire()
            self.backend("/" + "/".join(rest), body, user, behaviour == "break" and self.command == "POST")

    do_GET = do_POST = do

    def backend(self, path, body, user, break_off):
        path, _, query = path.partition("?")
        env = {
            **os.environ,
            "GIT_PROJECT_ROOT": self.root,
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_USER": user,
            "REMOTE_ADDR": self.client_address[0],
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if break_off:
            content = content[: len(content) // 2]
            self.close_connection = True
        self.wfile.write(content)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        # Callers that hang up or do not trust this host are part of the tests.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def certificate(directory):
    """A private CA, and a certificate of it for loopback."""
    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=CA of the tests", "-days", "2")
    openssl("req", *key, "-keyout", "host.key", "-out", "host.csr", "-subj", "/CN=localhost")
    with open(f"{directory}/names", "w") as names:
        names.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "host.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-extfile", "names", "-days", "2", "-out", "host.pem")
    return f"{directory}/ca.pem", f"{directory}/host.pem", f"{directory}/host.key"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    Handler.root = os.path.abspath(options.root)
    server = Server(("127.0.0.1", options.port), Handler)
    if options.tls:
        import ssl
        import tempfile

        ca, chain, key = certificate(tempfile.mkdtemp(prefix="git-host-"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        say(f"ca {ca}")
    say(f"listening {server.server_address[1]}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for _ in sys.stdin:
        gate.release()
    # Whoever started it has gone, or wants it gone.


main()
