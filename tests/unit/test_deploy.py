"""What is shipped beside the package: scripts, units, images; see also e2e/test_deployed.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from whisper_api.config import describe

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
SCRIPTS = [
    *sorted((DEPLOY / "image").glob("*.sh")),
    ROOT / "scripts" / "venv",
    ROOT / ".ci" / "run",
]
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in [ROOT / "Dockerfile", ROOT / "compose.yaml", *sorted(DEPLOY.rglob("*"))]
    if path.is_file()
}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean(path: Path) -> None:
    checker = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([checker, path], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert path.stat().st_mode & 0o111


def test_every_step_of_the_image_is_a_script_that_exists() -> None:
    steps = re.findall(r"^RUN (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(steps) == 3
    for step in steps:
        assert (DEPLOY / "image" / Path(step).name).is_file(), step


def test_the_image_is_not_roots_and_is_asked_how_it_is() -> None:
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert "HEALTHCHECK" in DOCKERFILE
    assert '"whisper-api-health"' in DOCKERFILE
    assert re.search(r"FROM base AS cpu\s+COPY[^\n]*\s*\Z", DOCKERFILE)  # the default is the last


@pytest.mark.parametrize("name", TEXTS)
def test_variables_are_settings(name: str) -> None:
    known = {doc.env for doc in describe()} | {"WHISPER_API_CONFIG"}
    for variable in re.findall(r"WHISPER_API_[A-Z_]+[A-Z]", TEXTS[name]):
        assert variable in known, variable


def test_settings_that_examples_name_exist() -> None:
    known = {doc.name for doc in describe()}
    for name, text in TEXTS.items():
        if "nginx" in name or "caddy" in name:
            for setting in re.findall(r"\b(?:trusted_proxies|allowed_hosts|root_path)\b", text):
                assert setting in known
    values = yaml.safe_load(TEXTS["deploy/helm/values.yaml"])
    assert set(values["settings"]) <= known


def test_versions_of_the_chart_are_the_packages() -> None:
    chart = yaml.safe_load(TEXTS["deploy/helm/Chart.yaml"])
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f'version = "{chart["appVersion"]}"' in project


def test_images_of_others_are_pinned() -> None:
    images = re.findall(r"^\s+image: (\S+)$", TEXTS["deploy/compose.cluster.yaml"], re.MULTILINE)
    others = [image for image in images if not image.startswith("whisper-api")]
    assert len(others) == 3
    for image in others:
        tag = image.partition(":")[2]
        assert re.search(r"\d", tag), image
        assert tag != "latest"


def test_workers_in_containers_have_a_port_for_the_images_health_check() -> None:
    services = yaml.safe_load(TEXTS["deploy/compose.cluster.yaml"])["services"]
    (worker,) = (service for service in services.values() if service.get("command") == ["worker"])
    assert worker["environment"]["WHISPER_API_WORKER_PORT"] == "5043"
    assert worker["environment"]["WHISPER_API_STORAGE_URL"]
    assert "WHISPER_API_WORKER_PORT" in TEXTS["deploy/helm/templates/worker.yaml"]


def test_units_give_the_server_time_to_drain() -> None:
    unit = TEXTS["deploy/systemd/whisper-api.service"]
    drain = next(doc.default for doc in describe() if doc.name == "drain_seconds")
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) >= float(drain) + 10


def test_every_file_that_the_guide_names_exists() -> None:
    guide = (ROOT / "docs" / "deploy.md").read_text("utf-8")
    named = set(
        re.findall(r"`((?:deploy|scripts|docs)/[\w./@-]+|Dockerfile|compose\.yaml)`", guide)
    )
    assert len(named) >= 10
    for name in named:
        assert (ROOT / name).exists(), name
