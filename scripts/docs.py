"""Write the generated parts of docs/ again, or with --check only say which are out of date.

A generated part stands between ``<!-- NAME: generated -->`` and ``<!-- /NAME -->``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from whisper_api.api.app import create_app
from whisper_api.api.schemas import FIELDS
from whisper_api.audio.media import SUPPORTED
from whisper_api.cli.flags import SHORT, flagged
from whisper_api.config import Settings, describe
from whisper_api.metrics import ClusterFigures, Metrics
from whisper_api.model_names import OPENAI_NAMES, SHORT_NAMES
from whisper_api.setting_docs import SettingDoc

DOCS = Path(__file__).resolve().parent.parent / "docs"


def settings() -> str:
    """Every setting, a table for each section."""
    parts = []
    for section, docs in groupby(describe(), lambda doc: doc.section):
        rows = [_setting(doc) for doc in docs]
        head = "| setting | default | allowed | what it is |\n|---|---|---|---|"
        parts.append("\n".join([f"### {section}", "", head, *rows]))
    return "\n\n".join(parts)


def _setting(doc: SettingDoc) -> str:
    default = doc.default if " " in doc.default else f"`{doc.default}`"
    flag = f"<br>`{doc.flag}`" if flagged(doc) else ""
    short = f"<br>`{SHORT[doc.name]}`" if doc.name in SHORT else ""
    cells = [f"`{doc.name}`{flag}{short}", default, doc.limits, doc.prose.replace("``", "`")]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def routes() -> str:
    """Every route that the API's own description has."""
    paths: dict[str, dict[str, Any]] = create_app(Settings()).openapi()["paths"]
    rows = [
        f"| `{method.upper()} {path}` | {entry['summary']} | {_first(entry['description'])} |"
        for path, methods in paths.items()
        for method, entry in methods.items()
    ]
    return "\n".join(["| route | what | more |", "|---|---|---|", *rows])


def _first(text: str) -> str:
    return " ".join(text.split("\n\n")[0].replace("``", "`").split())


def fields() -> str:
    """Every optional field of a transcription."""
    rows = []
    for name, schema in FIELDS.items():
        text = schema["description"]
        options = schema.get("enum") or schema.get("items", {}).get("enum")
        if options:
            text += f" One of {', '.join(f'`{item}`' for item in options)}."
        if "minimum" in schema:
            text += f" From {schema['minimum']} to {schema['maximum']}."
        rows.append(f"| `{name}` | {text} |")
    return "\n".join(["| field | what it is |", "|---|---|", *rows])


def metrics() -> str:
    """Every instrument."""
    instruments = Metrics()
    instruments.follow_queue(dict)
    instruments.follow_cluster(lambda: ClusterFigures({}, 0.0, 0.0, {}))
    instruments.follow_engines(dict)
    rows = sorted(_metrics(instruments.registry))
    return "\n".join(["| metric | what it counts |", "|---|---|", *rows])


def _metrics(registry: CollectorRegistry) -> list[str]:
    rows = []
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append(f"| `{name}` | {family.documentation} |")
    return rows


def formats() -> str:
    """File endings that are let in."""
    return ", ".join(f"`{name}`" for name in SUPPORTED)


def models() -> str:
    """Short names, and OpenAI's."""
    rows = [f"| `{name}` | `{model.repository}` |" for name, model in SHORT_NAMES.items()]
    names = ", ".join(f"`{name}`" for name in OPENAI_NAMES)
    table = "\n".join(["| name | hub repository |", "|---|---|", *rows])
    means = "These names of OpenAI's mean the default model unless `model_aliases` says else"
    return f"{table}\n\n{means}: {names}."


PARTS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "routes": routes,
    "fields": fields,
    "metrics": metrics,
    "formats": formats,
    "models": models,
}


def renewed(text: str) -> str:
    """``text`` with every generated part made anew."""

    def part(found: re.Match[str]) -> str:
        name = found["name"]
        return f"<!-- {name}: generated -->\n{PARTS[name]()}\n<!-- /{name} -->"

    return re.sub(
        r"<!-- (?P<name>\w+): generated -->\n.*?<!-- /(?P=name) -->", part, text, flags=re.DOTALL
    )


def main(check: bool) -> int:
    """Renew each page; 1 when ``check`` found one out of date."""
    stale = 0
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text("utf-8")
        if (fresh := renewed(text)) != text:
            stale += 1
            print(f"{path.name}: {'out of date; run make docs' if check else 'written'}")
            if not check:
                path.write_text(fresh, "utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
