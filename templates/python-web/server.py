"""A small web server without any dependency."""

import html
import json
import os
import signal
import sys
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

STARTED = time.monotonic()
PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Python</title>
<h1>Hello, {name}</h1>
<p>Edit <code>server.py</code>, then start the dev command again.</p>
"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/":
            name = parse_qs(url.query).get("name", ["world"])[0]
            self.answer(HTTPStatus.OK, "text/html; charset=utf-8", PAGE.format(name=html.escape(name)))
        elif url.path == "/health":
            uptime = time.monotonic() - STARTED
            self.answer(HTTPStatus.OK, "application/json", json.dumps({"status": "ok", "uptimeSeconds": uptime}))
        else:
            self.answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", f"there is no {url.path}\n")

    def answer(self, status, content_type, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    address = (os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "4321")))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ThreadingHTTPServer(address, Handler) as server:
        print(f"listening on http://{address[0]}:{address[1]}")
        server.serve_forever()


if __name__ == "__main__":
    main()
