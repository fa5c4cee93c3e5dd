"""The server: `/` is the page, `/api/entries` the same as JSON, POST there signs, `/health` asks the database."""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from guestbook.entries import connect, sign, summary
from guestbook.pages import page

_local = threading.local()


def database():
    """A connection for each thread, made anew where it broke."""
    connection = getattr(_local, "connection", None)
    if connection is None or connection.broken or connection.closed:
        connection = _local.connection = connect()
    return connection


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/":
            self.answer(200, "text/html; charset=utf-8", page(summary(database())))
        elif self.path == "/api/entries":
            self.answer(200, "application/json", json.dumps(summary(database())))
        elif self.path == "/health":
            database().execute("SELECT 1")
            self.answer(200, "text/plain", "ok")
        else:
            self.answer(404, "text/plain", "not here")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        sign(database(), body["visitor"])
        self.answer(201, "application/json", "{}")

    def answer(self, status, content_type, text):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except Exception as error:  # a visitor gets an answer, whatever happens
            self.close_connection = True
            print(f"{type(error).__name__}: {error}", flush=True)
            self.answer(500, "text/plain", "something went wrong")

    def log_message(self, *_):
        pass


def main():
    server = ThreadingHTTPServer((os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])), Handler)
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
