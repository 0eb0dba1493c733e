"""A web server on this machine that behaves as it is told."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Site:
    """What it serves, how, and what it was asked.

    Args:
        files: Content by path.
        ranges: Whether it gives parts.
        etag: What it calls the version of its files.
        modified: When it says they were changed.
        drops: How many bytes of a body it sends before it hangs up, one entry a request; then it drops no more.
        statuses: What it answers instead, one entry a request.
        redirects: Where it sends one on, by path.
        headers: Sent in place of its own; None leaves one out.
        asked: Headers of every request, and its path as ``path``.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etag: str | None = '"v1"'
    modified: str | None = None
    drops: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str | None] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def wanted(self) -> list[str | None]:
        """The ranges that were asked for."""
        return [headers.get("Range") for headers in self.asked]


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append({**dict(self.headers.items()), "path": self.path})
            if self.path in site.redirects:
                self.answer(302, {"Location": site.redirects[self.path], "Content-Length": "0"})
            elif site.statuses:
                self.answer(site.statuses.pop(0), {"Content-Length": "0"})
            elif self.path not in site.files:
                self.answer(404, {"Content-Length": "0"})
            else:
                self.send(site.files[self.path])

        def send(self, content: bytes) -> None:
            first, status, headers = 0, 200, {}
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            current = self.headers.get("If-Range") in (None, site.etag, site.modified)
            if asked and site.ranges and current:
                first, status = int(asked.group(1)), 206
                if first >= len(content):
                    self.answer(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
                    return
                headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            body = content[first:]
            headers |= {"Content-Length": str(len(body)), "Content-Type": "application/zip"}
            headers |= {"ETag": site.etag} if site.etag else {}
            headers |= {"Last-Modified": site.modified} if site.modified else {}
            self.answer(status, headers)
            self.wfile.write(body[: site.drops.pop(0)] if site.drops else body)

        def answer(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, **site.headers}.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
