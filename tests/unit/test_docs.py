"""docs/ against the code: every setting, route, field, metric, error code and format is there."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import whisper_api
from whisper_api.api.app import create_app
from whisper_api.api.errors import ANSWERS
from whisper_api.config import Settings, describe
from whisper_api.metrics import ClusterFigures, Metrics

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(whisper_api.__file__).parent
DOCS = {path.name: path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")}


def test_generated_parts_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "docs.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_setting_is_documented() -> None:
    for doc in describe():
        assert f"`{doc.name}`" in DOCS["settings.md"], doc.name


def test_every_route_is_documented() -> None:
    for route in create_app(Settings()).routes:
        path = getattr(route, "path", "")
        name = path.replace("{model_id:path}", "{model_id}")
        hidden = {"/web", "/docs/oauth2-redirect", "/favicon.ico", ""}
        if name not in hidden:
            assert re.search(rf"[` ]{re.escape(name)}`", DOCS["api.md"]), path


def test_every_metric_is_documented() -> None:
    metrics = Metrics()
    metrics.follow_queue(dict)
    metrics.follow_cluster(lambda: ClusterFigures({}, 0.0, 0.0, {}))
    metrics.follow_engines(dict)
    for family in metrics.registry.collect():
        assert family.name in DOCS["deploy.md"], family.name


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    metrics = Metrics()
    metrics.follow_queue(dict)
    metrics.follow_cluster(lambda: ClusterFigures({}, 0.0, 0.0, {}))
    metrics.follow_engines(dict)
    known = set()
    for family in metrics.registry.collect():
        known.add(family.name)
        known |= {f"{family.name}{end}" for end in ("_total", "_bucket", "_sum", "_count")}
    asked = set(re.findall(r"\b((?:whisper|process)_[a-z_]+)", dashboard_queries()))
    assert len(asked) > 10
    assert asked - known - {"process_resident_memory_bytes"} == set()


def dashboard_queries() -> str:
    """Every query of the dashboard."""
    panels = json.loads((ROOT / "docs" / "grafana.json").read_text("utf-8"))["panels"]
    return " ".join(target["expr"] for panel in panels for target in panel["targets"])


CODE_NAMES = {"default_code", "code"}
CODE_TUPLES = {"errors.py", "probes.py"}
NO_CODES = {"diarized_json", "model_"}
"""Texts that stand in an expression for a code without being one."""


def error_codes() -> set[str]:
    """Every text that the code gives as an error's ``code``, or returns last as ``X, "code"``."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            keyword = isinstance(node, ast.keyword) and node.arg == "code"
            named = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in CODE_NAMES
            parts = list(ast.walk(node)) if keyword or named else []
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                parts += node.value.elts[-1:] if path.name in CODE_TUPLES else []
            found |= {p.value for p in parts if isinstance(p, ast.Constant) and p.value}
    form = re.compile(r"[a-z]+(_[a-z0-9]+)+|timeout|overloaded")
    return {code for code in found if isinstance(code, str) and form.fullmatch(code)}


def test_every_error_code_is_documented() -> None:
    codes = error_codes()
    assert {"invalid_value", "file_too_large", "unsupported_value", "unknown_url"} <= codes
    listed = set(re.findall(r"^\| `(\w+)` \|", DOCS["api.md"].split("| code |")[1], re.MULTILINE))
    assert codes - listed - NO_CODES == set()


def test_every_status_is_documented() -> None:
    for answer in ANSWERS.values():
        assert f"\n| {answer.status} |" in DOCS["api.md"], answer


OPENAI = """file model language languages[] keywords[] prompt response_format temperature
timestamp_granularities[] include[] stream chunking_strategy known_speaker_names[]
known_speaker_references[] text usage languages logprobs task duration segments words
transcript.text.delta transcript.text.segment transcript.text.done [DONE] error x-request-id
openai-processing-ms Retry-After""".split()
"""Every field, answer key, event and header of OpenAI's."""


def test_everything_of_openais_has_a_row() -> None:
    part = DOCS["api.md"].split("## Compared with OpenAI's")[1].split("\n## ")[0]
    first = [line.split(" | ")[0] for line in part.splitlines() if line.startswith("| ")]
    for name in OPENAI:
        assert any(f"`{name}`" in cell for cell in first), name


def test_links_lead_somewhere() -> None:
    for name, text in DOCS.items():
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / "docs" / target).exists(), f"{name}: {target}"
