"""Serves this page, and hands what it asks of /v1 to the node, so that the browser sees one address.

    python examples/browser/serve.py [--node http://127.0.0.1:7400] [--listen 127.0.0.1:8000]

The node has to know the page's origin (`http.origins = ["http://127.0.0.1:8000"]`). Any proxy that serves both does as well.
"""

import argparse
import http.server
import pathlib
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).parent
FILES = {"/": ("index.html", "text/html; charset=utf-8"), "/stream.js": ("stream.js", "text/javascript; charset=utf-8")}
PASSED = ("authorization", "accept", "last-event-id", "aob-workspace")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.split("?")[0]
        if path in FILES:
            name, media_type = FILES[path]
            return self.answer(200, media_type, (HERE / name).open("rb"))
        if not path.startswith("/v1/"):
            return self.send_error(404)
        headers = {name: self.headers[name] for name in PASSED if self.headers[name]}
        try:
            answer = urllib.request.urlopen(urllib.request.Request(self.server.node + self.path, headers=headers))
        except urllib.error.HTTPError as refusal:
            answer = refusal
        except OSError:
            return self.send_error(502)
        self.answer(answer.status, answer.headers["content-type"], answer)

    def answer(self, status, media_type, body):
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("cache-control", "no-store")
        self.end_headers()
        with body:
            try:
                # Pieces as they come: a stream must not wait until it is whole.
                while piece := body.read1(65536):
                    self.wfile.write(piece)
            except (BrokenPipeError, ConnectionResetError):
                pass

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--node", default="http://127.0.0.1:7400")
    parser.add_argument("--listen", default="127.0.0.1:8000")
    asked = parser.parse_args()
    host, port = asked.listen.rsplit(":", 1)
    server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
    server.node = asked.node.rstrip("/")
    server.daemon_threads = True
    print(f"http://{host}:{server.server_port}/", flush=True)
    server.serve_forever()
