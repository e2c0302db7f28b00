"""A small HTTP server with the manners, good and bad, of other people's model servers.

`python tests/helpers/fake_engine.py --port 5800`. Needs the standard library only.

- `GET /health`: 200, or 503 while it is `--loading`; `GET /pids`: the process ids of it and its grandchild.
- `POST` anything: an echo of method, path, headers and body, as JSON. Members of a JSON body change the answer:
  `seconds`, wait before it; `grow`, take so many MiB more first; `exit`, end with that status instead of an answer.
- With `"stream": true` the answer is a stream of events, as OpenAI's: `tokens` of them (5), each after `delay` seconds
  (0), then `[DONE]`. With `die`, the process ends after so many.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STARTED = time.monotonic()
held: list[bytes] = []


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("-m", "--model", help="a file that is only named")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds until it listens")
    parser.add_argument("--loading", type=float, default=0.0, help="seconds for which /health answers 503")
    parser.add_argument("--never", action="store_true", help="never become ready: answer 503 for ever")
    parser.add_argument("--fail", type=int, help="end with this status at once, after a line on stderr")
    parser.add_argument("--size", type=float, default=0.0, help="MiB to hold from the start")
    parser.add_argument("--fork", action="store_true", help="start a grandchild in a session of its own")
    parser.add_argument("--stubborn", action="store_true", help="ignore SIGTERM")
    parser.add_argument("--silent-port", action="store_true", help="never listen")
    parser.add_argument("--say", default="", help="a line to print at the start")
    return parser.parse_known_args()[0]  # flags of other servers mean nothing


def take(mib: float) -> None:
    """Hold so many MiB, written to so that they are in memory."""
    if mib > 0:
        held.append(os.urandom(4096) * int(mib * 256))


def fork_grandchild() -> int:
    """A process that is two forks away, in a session of its own, and ignores SIGTERM. Returns its id."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if (pid := os.fork()) == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.close(reading)
            os.close(writing)
            while True:
                time.sleep(3600)
        os.write(writing, str(pid).encode())
        os._exit(0)
    os.close(writing)
    pid = int(os.read(reading, 32))
    os.close(reading)
    os.wait()
    return pid


class Handler(BaseHTTPRequestHandler):
    """Answers as the docstring of this file says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the parts of a stream wait for 40 ms and arrive together
    options: argparse.Namespace
    pids: list[int]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        is_loading = self.options.never or time.monotonic() - STARTED < self.options.slow + self.options.loading
        if path == "/health":
            self._answer(503 if is_loading else 200, {"status": "loading model" if is_loading else "ok"})
        elif path == "/pids":
            self._answer(200, self.pids)
        elif path == "/v1/models":
            self._answer(200, {"object": "list", "data": [{"id": self.options.model or "fake", "object": "model"}]})
        else:
            self._echo(b"")

    def do_POST(self) -> None:
        body = self._body()
        try:
            asked = json.loads(body)
        except ValueError:
            asked = {}
        if not isinstance(asked, dict):
            asked = {}
        take(asked.get("grow", 0))
        time.sleep(asked.get("seconds", 0))
        if "exit" in asked:
            os._exit(asked["exit"])
        if asked.get("stream"):
            self._stream(asked)
        else:
            self._echo(body)

    do_PUT = do_DELETE = do_PATCH = do_POST  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _echo(self, body: bytes) -> None:
        headers = [[name, value] for name, value in self.headers.items()]
        answer = {"method": self.command, "path": self.path, "headers": headers, "body": body.decode("latin-1")}
        self._answer(200, answer | {"pid": os.getpid()})

    def _answer(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, asked: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        tokens = asked.get("tokens", 5)
        for number in range(tokens):
            if number == asked.get("die"):
                os._exit(3)
            time.sleep(asked.get("delay", 0))
            choice = {"index": 0, "delta": {"content": f"t{number} "}, "finish_reason": None}
            self._event(json.dumps(self._chunk([choice])))
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1 + tokens}
        self._event(json.dumps(self._chunk([last]) | {"usage": usage}))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, choices: list[Any]) -> dict[str, Any]:
        return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "fake", "choices": choices}

    def _event(self, data: str) -> None:
        content = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        pass


class Server(ThreadingHTTPServer):
    """Listens with a backlog for many connections, and says nothing of clients that leave."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


def main() -> None:
    options = arguments()
    if options.say:
        print(options.say, flush=True)
    if options.fail is not None:
        print("fake engine: the model cannot be read", file=sys.stderr, flush=True)
        sys.exit(options.fail)
    if options.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Handler.pids = [os.getpid(), *([fork_grandchild()] if options.fork else [])]
    print("pids", *Handler.pids, flush=True)
    take(options.size)
    time.sleep(options.slow)
    if options.silent_port:
        threading.Event().wait()
    Handler.options = options
    Server((options.host, options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
