"""The report page of a sweep while it runs, on this machine alone."""

import functools
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from clockwork.files import encoded
from clockwork.report.html import page
from clockwork.training import open_results

HOST = "127.0.0.1"


def stamp(folder: Path) -> str:
    """A stamp that changes whenever a condition is finished."""
    found = sorted((folder / "conditions").glob("*.npz"))
    return " ".join(f"{path.name}:{path.stat().st_mtime_ns}" for path in found)


class Handler(BaseHTTPRequestHandler):
    """Serves the current page at ``/``, and the stamp of its data at ``/stamp``."""

    def __init__(self, folder: Path, command: str, *arguments, **named) -> None:
        self.folder, self.shown_command = folder, command
        super().__init__(*arguments, **named)

    def do_GET(self) -> None:
        """Answer a request."""
        name = self.headers.get("Host", "").rsplit(":", 1)[0]
        if name not in (HOST, "localhost"):  # a page of another host that resolves to this one
            self.send_error(403)
        elif self.path == "/stamp":
            self.answer(stamp(self.folder), "text/plain")
        elif self.path == "/":
            now = stamp(self.folder)
            try:
                text = page(open_results(self.folder), self.folder, self.shown_command, live=now)
            except (ValueError, OSError) as error:
                text = f"{self.folder} cannot be read: {error}"
                self.answer(text, "text/plain", 500)
            else:
                self.answer(text, "text/html")
        else:
            self.send_error(404)

    def answer(self, text: str, kind: str, status: int = 200) -> None:
        """Send a text."""
        content = encoded(text)
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def server(folder: Path, port: int, command: str = "") -> ThreadingHTTPServer:
    """A server of the page on the loopback interface; ``serve_forever`` starts it.

    Raises:
        OSError: if the port is taken.
    """
    return ThreadingHTTPServer((HOST, port), functools.partial(Handler, folder, command))
