"""Fetches a model's files from the hub: only those needed, resumed, at one fixed commit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from whisper_api.errors import ModelBroken, ModelNotFound, ServerError
from whisper_api.model_folder import folder_size
from whisper_api.model_names import HubModel

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
_INTERVAL = 0.3


def fetch(model: HubModel, folder: Path, progress: Progress | None = None) -> str:
    """Download into ``folder``; what an earlier, broken attempt left there is used. Answers the
    commit that was fetched.

    The hub's address is ``HF_ENDPOINT`` where that is set, a token ``HF_TOKEN``.

    Raises:
        ModelNotFound: there is no such repository or revision, or it is not open to you.
        ModelBroken: it holds no Whisper weights that may be read.
        ServerError: the hub cannot be reached, or the download broke off.
    """
    from huggingface_hub import HfApi, snapshot_download

    with _as_our_errors(model.repository):
        info = HfApi().model_info(model.repository, revision=model.revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        wanted = choose_files(list(sizes), model.repository)
        commit = info.sha or model.revision
        with _watched(folder, sum(sizes[name] for name in wanted), progress):
            snapshot_download(
                model.repository, revision=commit, allow_patterns=wanted, local_dir=folder
            )
    return commit


def choose_files(names: list[str], repository: str) -> list[str]:
    """The files of a repository that a model needs.

    Raises:
        ModelBroken: no weights, or pickled ones only.
    """
    small = [name for name in names if name in _SMALL]
    if "model.bin" in names and {"vocabulary.json", "vocabulary.txt"} & set(names):
        return ["model.bin", *small]
    if "model.safetensors.index.json" in names:
        shards = [name for name in names if fnmatch(name, _SHARD)]
        return ["model.safetensors.index.json", *shards, *small]
    if "model.safetensors" in names:
        return ["model.safetensors", *small]
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names):
        raise ModelBroken(
            f"{repository} has pickled weights only: opening such files can run code hidden in"
            " them, so they are refused. Look for a copy with safetensors."
        )
    raise ModelBroken(f"{repository} holds no Whisper weights.")


@contextmanager
def _as_our_errors(repository: str) -> Iterator[None]:
    import httpx
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
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
    except (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        httpx.HTTPError,
        OSError,
    ) as error:
        raise ServerError(
            f"{repository} could not be fetched from the hub ({type(error).__name__}); what"
            " arrived is kept, so try again. Without a network, import a folder instead."
        ) from error


@contextmanager
def _watched(folder: Path, total: int, progress: Progress | None) -> Iterator[None]:
    """Report how much lies in ``folder`` while the block runs."""
    if progress is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_INTERVAL):
            progress(min(_arrived(folder), total), total)

    thread = threading.Thread(target=watch, name="pull-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    progress(total, total)


def _arrived(folder: Path) -> int:
    try:
        return folder_size(folder)
    except OSError:  # a file was renamed between listing and looking
        return 0
