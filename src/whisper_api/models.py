"""The models of this machine: what a name means, what lies where, pulling, importing, removing.

    <data_dir>/models/
      small/  org--name/        one folder per model in CTranslate2's format, with ORIGIN.json
      .converted/<digest>/      conversions of Hugging Face folders that a setting names
      .downloads/<name>/        downloads in progress; kept for resuming

A request may name the default model, models that lie here, aliases of both, and any of these with
a profile (``small:meeting``); it never starts a download. A path may come from settings and from
the command line, never from a request.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from importlib.resources import files as package_files
from pathlib import Path

from cachetools import TTLCache

from whisper_api.accelerators import wants_checkpoints
from whisper_api.checkpoint import PICKLED, is_hugging_face
from whisper_api.config import Settings
from whisper_api.convert import convert_folder
from whisper_api.errors import ModelBroken, ModelNotFound, ModelUnavailable, ServerError
from whisper_api.hub import Progress, fetch
from whisper_api.model_entries import ORIGIN, ModelEntry, entry_of, read_origin
from whisper_api.model_folder import (
    ModelFiles,
    describe,
    describe_checkpoint,
    folder_size,
    is_ctranslate2,
)
from whisper_api.model_names import (
    BUNDLED,
    DEFAULT,
    OPENAI_NAMES,
    SHORT_NAMES,
    SYNONYMS,
    HubModel,
    check_name,
    folder_name,
    hub_model,
    split_profile,
)

__all__ = ["ModelEntry", "ModelFiles", "ModelStore", "Progress", "RemoteModels"]

WORKER_S = 5.0
"""Seconds after which a worker that is being started may have shown itself."""
_DIGESTED = ("*.safetensors", "*.json", "merges.txt")


class ModelStore:
    """The models under ``settings.models_dir``, the bundled one, and the default."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is read before it is needed."""
        self._settings = settings
        self._root = settings.models_dir
        self._lock = threading.Lock()  # one conversion, import or removal at a time
        aliases = dict.fromkeys(OPENAI_NAMES, DEFAULT) | settings.model_aliases
        self._aliases = {name: target for name, target in aliases.items() if target}
        # Checking a folder means reading its vocabulary: too much for every request.
        self._known: TTLCache[str, ModelFiles] = TTLCache(256, settings.model_ttl_s)
        self._known_lock = threading.Lock()

    @property
    def default_name(self) -> str:
        """The id of the default model; for a folder its last part, so that no path is told."""
        name = self._settings.model_path
        if _is_fake(self._settings):
            return name if name.startswith("fake") else "fake"
        return Path(name).name if self._is_path(name) else SYNONYMS.get(name, name)

    def resolve(self, name: str | None = None) -> ModelFiles:
        """The files of a model that lies here; None means the default.

        ``name`` may be an alias, and carry a profile. A default that is a Hugging Face folder is
        converted at the first call, once.

        Raises:
            ModelNotFound: unknown, or not on this machine.
            ModelBroken: its files cannot be used.
        """
        name, _ = split_profile(name or "", self._settings.profiles)
        name = self._aliases.get(name, name)
        with self._known_lock:
            if (known := self._known.get(name)) is not None:
                return known
        files = self._look(name)
        allowed = self._settings.allowed_models
        if allowed and not {name, files.id} & {DEFAULT, "", self.default_name, *allowed}:
            raise ModelNotFound(
                f"The model {name!r} is not offered here. These are: "
                f"{', '.join((self.default_name, *allowed))}."
            )
        with self._known_lock:
            self._known[name] = files
        return files

    def _look(self, name: str) -> ModelFiles:
        if name in ("", DEFAULT, self._settings.model_path, self.default_name):
            return self._default()
        if name == BUNDLED:
            return self._bundled()
        if ":" in name:
            raise ModelNotFound(self._unknown(name))
        folder = self._root / folder_name(name)
        if (folder / ORIGIN).is_file():
            return self._either(folder, read_origin(folder).get("name", name))
        raise ModelNotFound(self._unknown(name))

    def prepare(self, progress: Progress | None = None) -> ModelFiles:
        """The default model's files, pulled first where they are missing (unless offline).

        Raises:
            ModelNotFound, ModelBroken, ServerError: as ``resolve`` and ``pull``.
        """
        try:
            return self._default()
        except ModelNotFound:
            name = self._settings.model_path
            if self._is_path(name) or hub_model(name) is None:
                raise
            return self.pull(name, progress)

    def list(self) -> list[ModelEntry]:
        """The default model, the others that lie here, aliases, and the default's profiles."""
        entries = {entry.id: entry for entry in (*self._bundled_entry(), *self._stored())}
        default = self.default_name
        if allowed := self._settings.allowed_models:
            entries = {key: entries[key] for key in entries if key in (default, *allowed)}
        first = replace(entries.pop(default, ModelEntry(default)), default=True)
        meant = {
            name: default if target == DEFAULT else target
            for name, target in self._aliases.items()
            if name != default
        }
        meant |= {f"{default}:{profile}": default for profile in self._settings.profiles}
        aliases = [ModelEntry(name, alias_of=target) for name, target in meant.items()]
        return [first, *entries.values(), *aliases]

    def pull(
        self, name: str, progress: Progress | None = None, revision: str | None = None
    ) -> ModelFiles:
        """Fetch a model from the hub into the store, converting it where needed.

        ``name`` is a short name or ``org/name``; ``revision`` a branch, tag or commit instead of
        the pinned one. An interrupted download is resumed by the next call.

        Raises:
            ModelNotFound: no such name or repository.
            ModelBroken: what the repository holds cannot be used.
            ServerError: offline, or the hub failed.
        """
        model = hub_model(name, wants_checkpoints(self._settings))
        if model is None:
            raise ModelNotFound(self._unknown(name))
        if self._settings.offline:
            raise ServerError(f"offline is set: {name!r} is not fetched; import a folder instead.")
        if revision:
            model = HubModel(model.repository, revision)
        downloads = self._root / ".downloads" / folder_name(name)
        downloads.mkdir(parents=True, exist_ok=True)
        arrived, commit = fetch(model, downloads, progress)
        files = self._store(arrived, name, {"source": model.repository, "revision": commit})
        shutil.rmtree(downloads, ignore_errors=True)
        return files

    def import_folder(self, path: Path, name: str | None = None) -> ModelFiles:
        """Copy (CTranslate2) or convert (Hugging Face) a folder into the store.

        Where the transformers engine runs, Hugging Face folders are copied, too.
        ``name`` defaults to the folder's own. A model of that name is replaced.

        Raises:
            ModelNotFound: no such folder, or a name that is not allowed.
            ModelBroken: it holds no model that can be used.
        """
        folder = path.expanduser()
        if not folder.is_dir():
            raise ModelNotFound(f"There is no folder {str(path)!r}.")
        chosen = name or folder.resolve().name
        if chosen in (BUNDLED, DEFAULT) or chosen in OPENAI_NAMES:
            raise ModelNotFound(f"{chosen!r} is taken: choose another name for the model.")
        return self._store(folder, chosen, {"source": str(folder.resolve()), "revision": ""})

    def remove(self, name: str) -> None:
        """Delete a model from the store.

        Raises:
            ModelNotFound: it is not in the store (the bundled model and folders never are).
        """
        folder = self._root / folder_name(name)
        with self._lock:
            if name == BUNDLED or not (folder / ORIGIN).is_file():
                raise ModelNotFound(f"The model {name!r} is not in the store.")
            # Renaming first: a reader sees the whole model or none.
            trash = Path(tempfile.mkdtemp(prefix=".removing-", dir=self._root))
            folder.rename(trash / folder.name)
        self.forget()
        shutil.rmtree(trash, ignore_errors=True)

    def forget(self) -> None:
        """Look at every model's files anew."""
        with self._known_lock:
            self._known.clear()

    # --- the default --------------------------------------------------------------------------

    def _default(self) -> ModelFiles:
        name = self._settings.model_path
        if _is_fake(self._settings):
            return ModelFiles(id=self.default_name, path=Path(), kind="fake")
        if name == BUNDLED:
            return self._bundled()
        if self._is_path(name):
            return self._folder(Path(name).expanduser())
        folder = self._root / folder_name(name)
        if (folder / ORIGIN).is_file() and self._fits(folder):
            return self._either(folder, self.default_name)
        raise ModelNotFound(self._unknown(name))

    def _is_path(self, name: str) -> bool:
        if name.startswith(("/", "./", "../", "~", "\\")) or "\\" in name:
            return True
        known = name == BUNDLED or name in SHORT_NAMES or name in SYNONYMS
        return not known and (name.count("/") > 1 or Path(name).is_dir())

    def _folder(self, folder: Path) -> ModelFiles:
        if not folder.is_dir():
            raise ModelNotFound(
                f"model_path names the folder {str(folder)!r}, which does not exist. Correct it, or"
                " set model_path to 'bundled', a name such as 'small', or a hub name 'org/name'."
            )
        if is_ctranslate2(folder):
            return describe(folder, self.default_name)
        if is_hugging_face(folder):
            return self._either(folder, self.default_name)
        describe(folder, self.default_name)  # raises, and says what is missing
        raise ModelBroken(f"The folder {folder.name!r} holds no Whisper model.")

    def _either(self, folder: Path, name: str) -> ModelFiles:
        """A folder of either kind, as the engine that is chosen reads it."""
        if not is_hugging_face(folder):
            return describe(folder, name)
        if wants_checkpoints(self._settings):
            return describe_checkpoint(folder, name)
        return describe(self._converted(folder), name)

    def _fits(self, folder: Path) -> bool:
        """Whether the engine reads what was pulled for another one, maybe."""
        return self._settings.engine != "transformers" or is_hugging_face(folder)

    def _converted(self, folder: Path) -> Path:
        """The conversion of a Hugging Face folder, made at the first call."""
        with self._lock:
            target = self._root / ".converted" / self._digest(folder)
            if not target.is_dir():
                convert_folder(folder, target, self._quantization())
            return target

    def _digest(self, folder: Path) -> str:
        """Hash of the content; looked up by size and time, as hashing gigabytes takes seconds."""
        paths = sorted({path for pattern in _DIGESTED for path in folder.glob(pattern)})
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
        stamp = hashlib.sha256(repr((str(folder.resolve()), stats)).encode()).hexdigest()
        memo = self._root / ".converted" / f"{stamp}.digest"
        if memo.is_file():
            return memo.read_text(encoding="ascii")
        total = hashlib.sha256(self._quantization().encode())
        for path in paths:
            with path.open("rb") as file:
                total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
        memo.parent.mkdir(parents=True, exist_ok=True)
        memo.write_text(total.hexdigest(), encoding="ascii")
        return total.hexdigest()

    def _quantization(self) -> str:
        """What conversions write: as small as the device uses, so that loading stays quick."""
        wanted = self._settings.compute_type
        on_card = self._settings.device.startswith("cuda")
        if wanted in ("float16", "float32", "int8_float16"):
            return wanted
        return "float16" if on_card else "int8"

    def _bundled(self) -> ModelFiles:
        assets = Path(str(package_files("whisper_api"))) / "assets"
        if not (assets / BUNDLED).is_dir():
            raise ModelBroken("The bundled model is missing from this installation.")
        return describe(assets / BUNDLED, BUNDLED, assets / "MANIFEST.json")

    # --- the store ------------------------------------------------------------------------------

    def _store(self, folder: Path, name: str, origin: dict[str, str]) -> ModelFiles:
        target = self._root / folder_name(name)
        self._root.mkdir(parents=True, exist_ok=True)
        with self._lock, tempfile.TemporaryDirectory(prefix=".adding-", dir=self._root) as work:
            made = Path(work) / "model"
            if is_hugging_face(folder) and wants_checkpoints(self._settings):
                describe_checkpoint(folder, name)
                shutil.copytree(folder, made, ignore=shutil.ignore_patterns(".*", *PICKLED))
            elif is_hugging_face(folder):
                convert_folder(folder, made, self._quantization())
            else:
                describe(folder, name)
                shutil.copytree(folder, made, ignore=shutil.ignore_patterns(".*"))
            entry = {"name": SYNONYMS.get(name, name), **origin}
            (made / ORIGIN).write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
            files = self._either(made, entry["name"])
            if target.exists():
                target.rename(Path(work) / "old")
            made.rename(target)
        self.forget()
        return replace(files, path=target)

    def _stored(self) -> Sequence[ModelEntry]:
        if not self._root.is_dir():
            return ()
        folders = sorted(path.parent for path in self._root.glob(f"*/{ORIGIN}"))
        return [entry_of(folder) for folder in folders if not folder.name.startswith(".")]

    def _bundled_entry(self) -> Sequence[ModelEntry]:
        try:
            size = folder_size(self._bundled().path)
        except ModelBroken:  # a package built without it still serves other models
            return ()
        return (ModelEntry(BUNDLED, size=size, source="this package"),)

    def _unknown(self, name: str) -> str:
        model, colon, profile = name.rpartition(":")
        if colon and model in (*self._aliases, BUNDLED, self.default_name):
            known = ", ".join(self._settings.profiles) or "none"
            return f"The model {model!r} has no profile {profile[:60]!r}. Here are: {known}."
        check_name(name)
        here = ", ".join(entry.id for entry in self.list() if entry.alias_of is None)
        if hub_model(name) is not None:
            return (
                f"The model {name!r} is not on this server; its administrator can fetch it with"
                f" `whisper-api models pull {name}`. Here are: {here}."
            )
        return f"The model {name!r} does not exist. Here are: {here}."


class RemoteModels(ModelStore):
    """The models of other machines, for a process without an engine: names, no files."""

    offered: Callable[[], Collection[str]] = staticmethod(tuple)
    """Ids that workers have announced."""

    def resolve(self, name: str | None = None) -> ModelFiles:
        """As ``ModelStore.resolve``.

        Raises:
            ModelUnavailable: there are workers, and none of them has it.
        """
        files = super().resolve(name)
        if (error := self.absence(files.id)) is not None:
            raise error
        return files

    def absence(self, model: str) -> ModelUnavailable | None:
        """Why ``model`` would be waited for in vain; None where it would not.

        Where there is no worker at all one is to come, and work waits for it.
        """
        offered = self.offered()
        if not offered or model in offered:
            return None
        return ModelUnavailable(
            f"No worker has the model {model!r} now. They have: {', '.join(sorted(offered))}.",
            retry_after=WORKER_S,
        )

    def _look(self, name: str) -> ModelFiles:
        if name in ("", DEFAULT, self._settings.model_path, self.default_name):
            return ModelFiles(id=self.default_name, path=Path(), kind="remote")
        if name in self.offered():
            return ModelFiles(id=name, path=Path(), kind="remote")
        raise ModelNotFound(self._unknown(name))

    def _bundled_entry(self) -> Sequence[ModelEntry]:
        return ()

    def _stored(self) -> Sequence[ModelEntry]:
        return [ModelEntry(name, source="workers") for name in sorted(self.offered())]


def _is_fake(settings: Settings) -> bool:
    return settings.engine == "fake"
