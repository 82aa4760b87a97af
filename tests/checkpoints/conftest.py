import functools
import http.server
import os
import threading

import pytest


class Exploit:
    """An object whose unpickling makes a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.fixture
def exploit(tmp_path):
    """An object that makes the folder ``owned`` when it is unpickled."""
    return Exploit(tmp_path / "owned")


@pytest.fixture
def address(tmp_path):
    """URL of a server of the files in ``tmp_path``."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
