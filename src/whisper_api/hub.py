"""Fetches a model's files from the hub: only those needed, resumed, at one fixed commit.

The hub's own client says what there is. The bytes are fetched here, since that client begins a
file anew when its process was stopped, and weights have gigabytes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_api.errors import ModelBroken, ModelNotFound, ServerError, WhisperApiError
from whisper_api.model_names import HubModel

if TYPE_CHECKING:
    import httpx

Progress = Callable[[int, int], None]
"""Called with (bytes on disk, bytes in all), now and then and at the end."""

_SMALL = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocabulary.json",
    "vocabulary.txt",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "MANIFEST.json",
)
_SHARD = "model-*-of-*.safetensors"
_INTERVAL = 0.2  # seconds between two reports of progress
_ATTEMPTS = 5
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file to fetch."""

    name: str
    size: int
    sha256: str | None  #: known for large files only


def fetch(model: HubModel, folder: Path, progress: Progress | None = None) -> tuple[Path, str]:
    """Download below ``folder``; answers where the files lie and the commit they are of.

    What an earlier, stopped attempt left there is gone on with. The hub's address is
    ``HF_ENDPOINT`` where that is set, a token ``HF_TOKEN``.

    Raises:
        ModelNotFound: there is no such repository or revision, or it is not open to you.
        ModelBroken: it holds no Whisper weights that may be read.
        ServerError: the hub cannot be reached, or the download broke off.
    """
    import httpx
    from huggingface_hub import HfApi, get_token, hf_hub_url

    with _as_our_errors(model.repository):
        info = HfApi().model_info(model.repository, revision=model.revision, files_metadata=True)
        known = {file.name: file for file in map(_hub_file, info.siblings or [])}
        wanted = [known[name] for name in choose_files(list(known), model.repository)]
        commit = info.sha or model.revision
        target = folder / commit
        target.mkdir(parents=True, exist_ok=True)
        report = _Reporter(progress, target, wanted)
        token = get_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx.Client(follow_redirects=True, timeout=60, headers=headers) as client:
            for file in wanted:
                url = hf_hub_url(model.repository, file.name, revision=commit)
                _download(client, url, target, file, report)
        report.finish()
    return target, commit


def choose_files(names: list[str], repository: str) -> list[str]:
    """The files of a repository that a model needs.

    Raises:
        ModelBroken: no weights, or pickled ones only.
    """
    small = [name for name in names if name in _SMALL]
    if "model.bin" in names and {"vocabulary.json", "vocabulary.txt"} & set(names):
        return ["model.bin", *small]
    if "model.safetensors.index.json" in names:
        shards = [name for name in names if fnmatch(name, _SHARD) and "/" not in name]
        return ["model.safetensors.index.json", *shards, *small]
    if "model.safetensors" in names:
        return ["model.safetensors", *small]
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names):
        raise ModelBroken(
            f"{repository} has pickled weights only: opening such files can run code hidden in"
            " them, so they are refused. Look for a copy with safetensors."
        )
    raise ModelBroken(f"{repository} holds no Whisper weights.")


def _hub_file(sibling: Any) -> HubFile:
    lfs = sibling.lfs
    return HubFile(sibling.rfilename, sibling.size or 0, lfs.sha256 if lfs else None)


def _download(
    client: httpx.Client, url: str, folder: Path, file: HubFile, report: _Reporter
) -> None:
    """One file, in as many attempts as bring it further."""
    import httpx

    path, part = folder / file.name, folder / f"{file.name}.part"
    if path.is_file() and path.stat().st_size == file.size:
        return
    for attempt in range(_ATTEMPTS):
        try:
            _receive(client, url, part, report)
            break
        except httpx.TransportError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.2 * 2**attempt)
    _check(part, file)
    part.rename(path)


def _receive(client: httpx.Client, url: str, part: Path, report: _Reporter) -> None:
    """Add to ``part`` what is missing at its end."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:  # nothing is missing
            return
        response.raise_for_status()
        with part.open("ab" if response.status_code == 206 else "wb") as file:
            for block in response.iter_bytes(_BLOCK):
                file.write(block)
                report.now()


def _check(part: Path, file: HubFile) -> None:
    size = part.stat().st_size
    broken = bool(file.size) and size != file.size
    if not broken and file.sha256:
        with part.open("rb") as data:
            broken = hashlib.file_digest(data, "sha256").hexdigest() != file.sha256
    if broken:
        part.unlink()
        raise ServerError(f"{file.name} did not arrive as the hub has it; try again.")


class _Reporter:
    """Tells how much lies on disk, not more often than every ``_INTERVAL``."""

    def __init__(self, progress: Progress | None, folder: Path, files: list[HubFile]) -> None:
        self._progress = progress
        self._folder = folder
        self._total = sum(file.size for file in files)
        self._next = 0.0

    def now(self) -> None:
        if self._progress is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _INTERVAL
            done = sum(path.stat().st_size for path in self._folder.iterdir())
            self._progress(min(done, self._total), self._total)

    def finish(self) -> None:
        if self._progress is not None:
            self._progress(self._total, self._total)


@contextmanager
def _as_our_errors(repository: str) -> Iterator[None]:
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except WhisperApiError:
        raise
    except GatedRepoError as error:
        raise ModelNotFound(
            f"{repository} is closed: accept its terms on the hub and set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelNotFound(f"{repository} has no such revision on the hub.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelNotFound(
            f"There is no model {repository!r} on the hub, or it is private (set HF_TOKEN)."
        ) from error
    except Exception as error:  # whatever network library the hub's client uses today
        raise ServerError(
            f"{repository} could not be fetched from the hub ({type(error).__name__}); what"
            " arrived is kept, so try again. Without a network, import a folder instead."
        ) from error
