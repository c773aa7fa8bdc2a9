"""A real server in this process, and requests as any client might send them."""

import contextlib
import http.client
import io
import json
import socket
import struct
import threading
import time
import zlib

import numpy as np
from PIL import Image

from subclass_kd.serve.access import Access
from subclass_kd.serve.limits import Limits
from subclass_kd.serve.server import listen, make_server

BOUNDARY = "------------------------0123456789"


@contextlib.contextmanager
def serving(folder, limits=None, token=None, loopback=True, int8=False):
    """Serve a bundle on a free port, and give the port, the server and its student."""
    listener = listen("127.0.0.1", 0, token)
    server, student = make_server(folder, Access(token, loopback), limits or Limits(), int8=int8)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        yield Served(listener.getsockname()[1], server, student)
    finally:
        server.should_exit = True
        thread.join()
        student.close()
        listener.close()


class Served:
    """A server to be asked.

    Args:
        port: it listens at.
        server: uvicorn's.
        student: that answers.
    """

    def __init__(self, port, server, student):
        self.port, self.server, self.student = port, server, student

    def ask(self, method, path, body=None, **headers):
        """Give status, headers and body: parsed, where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            content = response.read()
            is_json = response.headers["content-type"] == "application/json"
            return response.status, response.headers, json.loads(content) if is_json else content

    def post(self, *files, **headers):
        """Send files, each (name, content), as a browser does."""
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        return self.ask("POST", "/v1/predictions", multipart(*files), Content_Type=kind, **headers)

    def raw(self, content, seconds=10):
        """Send bytes, and give all that comes back until the server hangs up."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.sendall(content)
            return everything(connection)


def everything(connection):
    """Read until the other side hangs up."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    return received


def multipart(*files, field="files"):
    """Give the body of a form with files, each (name, content); a name of bytes goes in as it is."""
    body = b""
    for name, content in files:
        raw = name if isinstance(name, bytes) else name.encode().replace(b'"', b"%22")
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="'.encode() + raw
        body += b'"\r\nContent-Type: image/png\r\n\r\n' + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def png(grey=51, side=8, mode="L"):
    """Give a PNG of one grey."""
    file = io.BytesIO()
    Image.fromarray(np.full((side, side), grey, np.uint8)).convert(mode).save(file, "PNG")
    return file.getvalue()


def bomb(side):
    """Give a PNG of a few bytes whose header promises side x side pixels."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    lines = zlib.compress(bytes(100_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
