"""Runs in an environment of its own: renders the chart and holds files against schemas.

The question comes as JSON on stdin, the answer goes as JSON to stdout.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import yaml

FOREIGN = {"ServiceMonitor", "ScaledObject"}
"""Kinds of Prometheus' operator and of KEDA, whose schemas are not Kubernetes' own."""


def judge(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to one question."""
    if "compose" in question:
        return compose(question["compose"])
    if "refused" in question:
        return {"refused": refusal(question["chart"], question["refused"])}
    return chart(question)


def chart(question: dict[str, Any]) -> dict[str, Any]:
    """Every variant's objects, and what Helm and Kubernetes' schemas have against them."""
    import kubernetes_validate
    from helm_python.chart import Chart, lint

    errors: list[str] = [str(error) for error in lint(question["chart"])["errors"]]
    objects: dict[str, list[dict[str, Any]]] = {}
    with Chart.load(question["chart"]) as loaded:
        for name, values in question["variants"].items():
            files = loaded.render(values=values, name="demo", namespace="speech")
            objects[name] = list(parse(files))
            for item in objects[name]:
                if item["kind"] in FOREIGN:
                    continue
                try:
                    kubernetes_validate.validate(item, question["version"], strict=True)
                except kubernetes_validate.ValidationError as error:
                    errors.append(f"{name}: {item['kind']}: {error.message}")
    return {"errors": errors, "objects": objects}


def parse(files: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The objects in rendered files."""
    for path, text in files.items():
        if path.endswith(".yaml"):
            yield from (item for item in yaml.safe_load_all(text) if item)


def refusal(path: str, values: dict[str, Any]) -> str:
    """Helm's words against values; empty where it takes them."""
    from helm_python.chart import Chart
    from helm_python.errors import HelmError

    with Chart.load(path) as loaded:
        try:
            loaded.validate_schema(values)
            loaded.render(values=values, name="demo", namespace="speech")
        except HelmError as error:
            return str(error)
    return ""


def compose(text: str) -> dict[str, Any]:
    """The services of a compose file, or what is wrong with it."""
    import compose_spec

    try:
        parsed = compose_spec.PyOptions(apply_merge=True).from_yaml(text)
        parsed.validate()
    except Exception as error:
        return {"error": str(error)}
    return {"services": sorted(parsed.service_names())}


if __name__ == "__main__":
    json.dump(judge(json.load(sys.stdin)), sys.stdout)
