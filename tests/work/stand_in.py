"""A server on this machine that speaks the OpenAI chat protocol as far as a test wants it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """Answers each question by `answer(server, text, nth)`: a text, or (status, headers, body) as they are.

    `asked` has the requests' bodies in the order in which they came, `headers` their headers.
    """

    def __init__(self, answer: Callable[[Server, str, int], Any]):
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.over = threading.Event()
        server, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    server.asked.append({"path": self.path, **body})
                    server.headers.append({name.lower(): value for name, value in self.headers.items()})
                    nth = len(server.asked)
                found = answer(server, body["messages"][0]["content"], nth)
                status, headers, data = found if isinstance(found, tuple) else (200, {}, completion(found))
                try:
                    self.send_response(status)
                    headers = {"content-type": "application/json", "content-length": len(data), **headers}
                    for name, value in headers.items():
                        self.send_header(name, str(value))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:  # nobody waits for it any more
                    pass

            def log_message(self, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def texts(self) -> list[str]:
        return [one["messages"][0]["content"] for one in self.asked]

    def hang(self) -> str:
        """Answer when the test is over."""
        self.over.wait(60)
        return "too late"

    def close(self) -> None:
        self.over.set()
        self._http.shutdown()
        self._http.server_close()


def completion(text: str | None, *, usage: Any = (100, 2), finish_reason: str = "stop") -> bytes:
    """The body of an answer; `usage` is (read, written), or as the server would have it."""
    told = {"prompt_tokens": usage[0], "completion_tokens": usage[1]} if isinstance(usage, tuple) else usage
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": told}).encode()


def refusal(
    status: int, message: str, *, headers: Any = (), **more: Any
) -> tuple[int, dict[str, str], bytes]:
    """The answer of a server that does not answer."""
    return status, dict(headers), json.dumps({"error": {"message": message, **more}}).encode()
