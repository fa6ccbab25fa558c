"""Real nginx and Caddy in front of a server, with the files of ``deploy/``."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
HOST = "speech.example.com"
KINDS = ["nginx", "caddy"]
ROOT_CADDY = "{\n\tadmin off\n\tauto_https off\n}\n"


@dataclass(frozen=True)
class Proxy:
    """A running proxy; ``root`` is the address that leads to the server's root."""

    root: str
    authority: trustme.CA


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def swap(text: str, *pairs: tuple[str, str]) -> str:
    """``text`` with each first replaced by its second.

    Raises:
        AssertionError: the example no longer holds what is to be replaced.
    """
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


@contextmanager
def proxied(kind: str, folder: Path, upstream: int, *, below: bool = False) -> Iterator[Proxy]:
    """``kind`` (nginx, caddy) in front of the port ``upstream``: the whole site over https, or
    ``below`` a path over http."""
    folder.mkdir(exist_ok=True)
    authority, port = trustme.CA(), free_port()
    issued = authority.issue_cert(HOST)
    certificate, key = folder / "site.crt", folder / "site.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    write = {"nginx": _nginx, "caddy": _caddy}[kind]
    command = write(folder, upstream, port, certificate, key, below)
    environment = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / f"{kind}.out").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            _wait_for(port, process, folder / f"{kind}.out")
            root = f"http://127.0.0.1:{port}/speech" if below else f"https://{HOST}:{port}"
            yield Proxy(root, authority)
        finally:
            process.terminate()
            process.wait(20)


def program(name: str) -> str:
    """Where Debian's packages put it, which is not in everybody's path."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin")
    assert found, f"{name} is not installed (apt-get install nginx-light caddy)"
    return found


def _nginx(
    folder: Path, upstream: int, port: int, certificate: Path, key: Path, below: bool
) -> list[str]:
    text = {path.name: path.read_text("utf-8") for path in (DEPLOY / "nginx").glob("*.conf")}
    include = ("/etc/nginx/whisper-api/", f"{folder}/")
    if below:
        site = f"server {{\n listen 127.0.0.1:{port};\n{swap(text['below.conf'], include)}}}\n"
    else:
        site = swap(
            text["site.conf"],
            include,
            ("listen 443 ", f"listen 127.0.0.1:{port} "),
            ("/etc/ssl/speech.example.com.crt", str(certificate)),
            ("/etc/ssl/speech.example.com.key", str(key)),
        )
    (folder / "proxy.conf").write_text(text["proxy.conf"])
    (folder / "site.conf").write_text(site)
    (folder / "upstream.conf").write_text(
        swap(text["upstream.conf"], ("127.0.0.1:5042", f"127.0.0.1:{upstream}"))
    )
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}"
        f"include {folder}/upstream.conf;\ninclude {folder}/site.conf;\n}}\n"
    )
    command = [program("nginx"), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    return command


def _caddy(
    folder: Path, upstream: int, port: int, certificate: Path, key: Path, below: bool
) -> list[str]:
    address = ("127.0.0.1:5042", f"127.0.0.1:{upstream}")
    if below:
        text = (DEPLOY / "caddy" / "below.Caddyfile").read_text("utf-8")
        text = swap(text, address, ("www.example.com {", f"http://127.0.0.1:{port} {{"))
    else:
        text = (DEPLOY / "caddy" / "Caddyfile").read_text("utf-8")
        opening = f"https://{HOST}:{port} {{\n\ttls {certificate} {key}\n"
        text = swap(text, address, (f"{HOST} {{\n", opening))
    (folder / "Caddyfile").write_text(ROOT_CADDY + text)
    config = ["--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    subprocess.run([program("caddy"), "validate", *config], check=True, capture_output=True)
    return [program("caddy"), "run", *config]


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 30
    while True:
        assert process.poll() is None, log.read_text("utf-8", errors="replace")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < end, log.read_text("utf-8", errors="replace")
            time.sleep(0.02)
