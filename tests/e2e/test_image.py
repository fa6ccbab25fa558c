"""The image's steps without a container engine: each script in a clean folder, then the server as
the image starts it: another user, a file system that cannot be written, one folder that can."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import httpx
import pytest

from whisper_api.api.system import SAMPLE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root"),
]
ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
BASE = Path(sys.base_prefix).resolve()
READ_ONLY = """
set -e
# Interpreter and packages may lie in folders that only root may enter.
mount --bind "$BASE" "$PLACE/python"
mount --bind "$SITE" "$PLACE/lent"
for folder in / /tmp /var/tmp; do
    mount --rbind "$folder" "$folder"
    mount -o remount,bind,ro "$folder"
done
mount --bind "$DATA" "$DATA"
mount -o remount,bind,rw "$DATA"
exec "$@"
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def context(target: Path) -> None:
    """Copy what a builder would be sent, as ``.dockerignore`` says."""
    rules = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line]

    def sent(path: str) -> bool:
        kept = True
        for rule in rules:
            pattern = rule.removeprefix("!").replace("**/", "*")
            parts = [path, *(str(above) for above in Path(path).parents)]
            if any(fnmatch(part, pattern) and part != "." for part in parts):
                kept = rule.startswith("!")
        return kept

    for path in [*ROOT.glob("*"), *ROOT.glob("src/**/*"), *ROOT.glob("deploy/**/*")]:
        name = str(path.relative_to(ROOT))
        if path.is_file() and sent(name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target / name)


@pytest.fixture(scope="module")
def built(place: Path) -> Path:
    """The environment that ``install.sh`` makes of the sent files. What it would download is
    lent from this environment."""
    everything, folder, opt = place / "context", place / "build", place / "opt"
    everything.mkdir()
    context(everything)
    folder.mkdir()
    stage = DOCKERFILE.split("AS build\n")[1].split("\nFROM")[0]
    for line in re.findall(r"^COPY (.+)$", stage, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            there = everything / source
            goal = folder / (source if target == "./" else target)
            if there.is_dir():
                shutil.copytree(there, goal)
            else:
                shutil.copy2(there, goal)
    venv.create(opt, with_pip=True, symlinks=True)
    (site,) = opt.glob("lib/python3.*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib"))
    step = re.search(r"^RUN (\S+install\.sh)", stage, re.MULTILINE)
    extras = re.search(r"^ARG EXTRAS=(\S+)$", stage, re.MULTILINE)
    assert step is not None
    assert extras is not None
    subprocess.run([folder / step[1], opt, extras[1]], cwd=folder, check=True)
    _lend(opt, site, place)
    return opt


def _lend(opt: Path, site: Path, place: Path) -> None:
    """Have the environment use what ``READ_ONLY`` binds there."""
    for name in ("python", "lent"):
        (place / name).mkdir()
    (site / "lent.pth").write_text(str(place / "lent"))
    inside = place / "python" / Path(sys.executable).resolve().relative_to(BASE)
    for name in ("python3", f"python3.{sys.version_info.minor}", "python"):
        (opt / "bin" / name).unlink(missing_ok=True)
        (opt / "bin" / name).symlink_to(inside)
    config = opt / "pyvenv.cfg"
    text = re.sub(r"(?m)^home = .*$", f"home = {inside.parent}", config.read_text("utf-8"))
    config.write_text(text)


def test_only_what_the_image_needs_is_sent(built: Path, place: Path) -> None:
    sent = {path.relative_to(place / "context").parts[0] for path in (place / "context").iterdir()}
    assert sent == {"LICENSE", "README.md", "constraints.txt", "deploy", "pyproject.toml", "src"}
    assert [path.name for path in (place / "context" / "deploy").iterdir()] == ["image"]
    assert list((place / "context").rglob("*.pyc")) == []


def test_the_code_is_compiled_ahead(built: Path) -> None:
    (package,) = built.glob("lib/python3.*/site-packages/whisper_api")
    assert {path.stem for path in package.glob("*.py")} == {
        path.name.split(".")[0] for path in package.glob("__pycache__/*.pyc")
    }


def test_the_account_owns_the_one_folder(place: Path) -> None:
    root = place / "root"
    (root / "etc").mkdir(parents=True)
    for name in ("passwd", "group", "shadow", "gshadow"):
        (root / "etc" / name).touch()
    subprocess.run([ROOT / "deploy" / "image" / "account.sh", root], check=True)
    assert "whisper:x:10001:10001::/data:" in (root / "etc" / "passwd").read_text()
    owned = (root / "data").stat()
    assert (owned.st_uid, owned.st_gid, owned.st_mode & 0o777) == (10001, 10001, 0o750)


SYSTEM = re.compile(
    r"ld-linux|lib(c|m|dl|rt|pthread|util|resolv|mvec|gcc_s|stdc\+\+|z)\.so|linux-vdso"
)
"""Libraries that Debian's smallest images have."""


def test_the_base_image_has_every_library_that_is_needed() -> None:
    site = Path(sysconfig.get_path("purelib"))
    needed: dict[str, str] = {}
    for package in ("av", "ctranslate2", "onnxruntime", "tokenizers", "numpy", "psycopg_binary"):
        for path in (site / package).rglob("*.so*"):
            told = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
            for name, _, where in (line.strip().partition(" => ") for line in told.splitlines()):
                if name.startswith("lib") and "site-packages" not in where:
                    needed[name.split()[0]] = str(path)
    assert "libc.so.6" in needed
    strange = {name: path for name, path in needed.items() if not SYSTEM.search(name)}
    assert strange == {}


def test_the_server_writes_into_its_one_folder_only(built: Path, place: Path) -> None:
    data = place / "data"
    data.mkdir(mode=0o750)
    os.chown(data, 10001, 10001)
    given = re.search(r"^ENV (PATH.*)$", DOCKERFILE, re.MULTILINE)
    assert given is not None
    environment = dict(pair.split("=", 1) for pair in given[1].split())
    environment |= {"HOME": str(data), "WHISPER_API_DATA_DIR": str(data), "DATA": str(data)}
    environment |= {"PLACE": str(place), "BASE": str(BASE)}
    environment |= {"SITE": sysconfig.get_path("purelib")}
    environment["LD_LIBRARY_PATH"] = f"{place}/python/lib"  # where Python is a shared library
    environment |= {"PATH": f"{built}/bin:/usr/sbin:/usr/bin:/bin", "WHISPER_API_HOST": "127.0.0.1"}
    as_user = ["setpriv", "--reuid=10001", "--regid=10001", "--clear-groups", "--no-new-privs"]
    as_user += ["--inh-caps=-all", "--bounding-set=-all"]
    command = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", *as_user]
    command += ["whisper-api", "serve", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=data
    ) as process:
        try:
            assert process.stdout is not None
            url = next(word for word in process.stdout.readline().split() if "://" in word)
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert re.search(r"^Uid:\s+10001\s+10001", status, re.MULTILINE)
            assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
            files = {"file": ("sample.wav", SAMPLE.read_bytes())}
            answer = httpx.post(f"{url}/v1/audio/transcriptions", files=files, timeout=120)
            assert answer.json()["text"] == "Four zero four. Two zero one."
            port = url.rsplit(":", 1)[1]
            asked = ["nsenter", f"--target={process.pid}", "--mount", "whisper-api-health"]
            environment["WHISPER_API_SERVICE_PORT"] = port
            assert subprocess.run(asked, env=environment, check=False).returncode == 0
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert {path.stat().st_uid for path in data.rglob("*")} == {10001}
