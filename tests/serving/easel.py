"""A stand-in for `mlflow models serve` that starts at once: the same addresses and answers, standard library only.

python easel.py PORT VERSION BEHAVIOUR      BEHAVIOUR: good | tiny (paints one pixel) | mute (never healthy)
"""

import base64
import json
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, version, behaviour = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def png(width: int, height: int) -> str:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\x00" + b"\x80" * width) * height)
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return base64.b64encode(picture).decode()


class Easel(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(503 if behaviour == "mute" else 200, {})

    def do_POST(self):
        [row] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["dataframe_records"]
        if row["prompt"] == "slowly":
            time.sleep(1.5)
        size = (1, 1) if behaviour == "tiny" else (row.get("width", 8), row.get("height", 8))
        self.answer(200, {"predictions": [{"image": png(*size), "format": "png", "version": version}]})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", port), Easel)
server.daemon_threads = False  # closing waits for requests in progress, as uvicorn does
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("easel", version, "on", port, flush=True)
server.serve_forever()
server.server_close()
