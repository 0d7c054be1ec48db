"""nginx with the nchan module: `nchan_server DIRECTORY`. Prints its port and process, serves until input ends."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.peers.children import child

_MODULES = ("/usr/lib/nginx/modules", "/usr/share/nginx/modules", "/usr/lib64/nginx/modules")
_CONFIGURATION = """
load_module {module};
daemon off; master_process off; worker_rlimit_nofile 20000; user root;
error_log {directory}/error.log; pid {directory}/pid;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /subscriber {{ nchan_subscriber websocket; nchan_channel_id room; nchan_message_buffer_length 0; }}
    location = /controller {{ nchan_publisher websocket; nchan_channel_id room; nchan_message_buffer_length 1000; }}
  }}
}}
"""


def main(directory: Path) -> None:
    """Serve."""
    nginx = shutil.which("nginx")
    assert nginx is not None
    beside = Path(nginx).parent.parent / "lib" / "nginx" / "modules"
    folders = [beside, *map(Path, _MODULES)]
    module = next((f / "ngx_nchan_module.so" for f in folders if (f / "ngx_nchan_module.so").exists()), None)
    if module is None:
        sys.exit("nginx has no nchan module")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = directory / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(module=module, directory=directory, port=port))
    with child([nginx, "-c", str(configuration), "-p", str(directory)], directory / "log") as process:
        _await(port, process)
        print(port, process.pid, flush=True)
        sys.stdin.read()


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit("nginx did not start")
            time.sleep(0.02)


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C")
    main(Path(sys.argv[1]))
