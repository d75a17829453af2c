"""A local chat-completions server on which tests play answers."""
import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextlib.contextmanager
def answering(answer):
    "The address of a server; `answer(request, body)` is (status, text, headers), or None when it has dealt with the connection itself."
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            told = answer(self, json.loads(self.rfile.read(int(self.headers['content-length']))))
            if told is None: return
            status, text, headers = told
            data = text.encode()
            self.send_response(status)
            for k, v in {'content-type': 'application/json', 'content-length': str(len(data)), **headers}.items(): self.send_header(k, v)
            self.end_headers(); self.wfile.write(data)

        def log_message(self, *a): pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        def handle_error(self, *a): pass   # who hung up is a matter of the test, not of what another test prints

    server = Server(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{server.server_port}/v1'
    finally: server.shutdown(); server.server_close()
