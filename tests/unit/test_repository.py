"""The repository itself: dependencies declared and pinned, no addresses, house limits."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import whisper_api

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(whisper_api.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MODULES = sorted(PACKAGE.rglob("*.py"))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {normal(item.name): item for item in wanted}


def declared(extra: str | None = None) -> set[str]:
    lines = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    return {normal(Requirement(line).name) for line in lines}


def test_constraints_are_exact_and_hold_no_addresses() -> None:
    for name, item in pins().items():
        assert [clause.operator for clause in item.specifier] == ["=="], name
        assert item.url is None, name


def test_everything_that_is_installed_is_pinned() -> None:
    todo, seen = declared() | declared("dev"), set[str]()
    while todo:
        name = todo.pop()
        seen.add(name)
        for line in requires(name) or ():
            item = Requirement(line)
            if item.marker is None or item.marker.evaluate({"extra": ""}):
                todo |= {normal(item.name)} - seen
    assert seen - pins().keys() == set()


def imported() -> set[str]:
    """Top-level modules that the package imports from elsewhere."""
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"whisper_api"}


def test_every_import_is_declared() -> None:
    distributions = packages_distributions()
    for module in imported():
        names = {normal(name) for name in distributions.get(module, [module])}
        # A part of pydantic that has a distribution of its own, and what an extra brings.
        extras = declared("openvino") | declared("otel") | declared("transformers")
        assert names & (declared() | {"pydantic-core"} | extras), module


def test_python_versions_agree_everywhere() -> None:
    assert PROJECT["requires-python"] == ">=3.11,<3.15"
    script = (ROOT / "scripts" / "venv").read_text("utf-8")
    assert "3.11 | 3.12 | 3.13 | 3.14)" in script


def test_versions_agree() -> None:
    assert PROJECT["version"] == whisper_api.__version__


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno <= 50, node.name


def tracked() -> list[Path]:
    """Every text file that git knows, or, outside of git, every one of the usual kinds."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        return [path for path in ROOT.rglob("*.py") if ".venv" not in path.parts]
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_no_machine_paths_and_no_download_addresses() -> None:
    # Written in parts, so that this file does not match itself.
    forbidden = re.compile(
        "|".join(["/wo" + "rk/", "/ro" + "ot/", "index" + "-url", r"https?://\S+\.(?:whl|deb)\b"])
    )
    for path in tracked():
        if path.suffix in {".py", ".md", ".toml", ".txt", ".yaml", ""} and path.is_file():
            found = forbidden.search(path.read_text("utf-8", errors="ignore"))
            assert found is None, f"{path.relative_to(ROOT)}: {found and found.group()}"


@pytest.mark.skipif(sys.platform == "win32", reason="a bash script")
def test_wrong_pythons_are_refused_in_one_line(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho 3.9\n")
    old.chmod(0o755)
    script = ["bash", str(ROOT / "scripts" / "venv"), str(tmp_path / "venv")]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHON": str(old)}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "Python 3.9; Python 3.11 to 3.14 is needed" in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="a bash script")
def test_a_python_without_venv_says_what_helps(tmp_path: Path) -> None:
    bare = tmp_path / "python3"
    bare.write_text('#!/bin/sh\ncase "$2" in *version_info*) echo 3.12 ;; *) exit 1 ;; esac\n')
    bare.chmod(0o755)
    for tool in ("bash", "dirname", "rm"):
        (tmp_path / tool).symlink_to(f"/bin/{tool}")
    script = ["/bin/bash", str(ROOT / "scripts" / "venv"), str(tmp_path / "venv")]
    environment = {"PATH": str(tmp_path), "PYTHON": str(bare)}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "apt install python3-venv" in done.stderr


def test_a_checkout_that_nobody_installed_can_be_imported(tmp_path: Path) -> None:
    """As ``benchmarks/gpu.py`` is run on a borrowed machine."""
    copy = tmp_path / "whisper_api" / "__init__.py"
    copy.parent.mkdir()
    copy.write_bytes((PACKAGE / "__init__.py").read_bytes())
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import whisper_api; print(whisper_api.__version__)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "0+checkout", done.stderr
