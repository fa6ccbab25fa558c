"""The engine ``auto``: the fastest correct one.

On processors CTranslate2, with OpenVINO's encoder where that is installed and faster; on a CUDA
card transformers, where it is installed and the model is a Hugging Face folder.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

from whisper_api.engines.base import Engine
from whisper_api.engines.ctranslate2 import CTranslate2Engine
from whisper_api.engines.parts import Chosen, Parts
from whisper_api.engines.placement import choose_placement
from whisper_api.model_folder import CHECKPOINT

if TYPE_CHECKING:
    from whisper_api.config import Settings
    from whisper_api.models import ModelFiles

log = logging.getLogger(__name__)

INSTALL = "pip install 'whisper-api-server[openvino]'"


class AutoEngine:
    """Loads the fastest correct engine."""

    @staticmethod
    def load(files: ModelFiles, settings: Settings) -> Engine:
        """As ``CTranslate2Engine.load`` or ``TransformersEngine.load``."""
        if files.kind == CHECKPOINT:  # the store has found that torch has a card
            from whisper_api.engines.transformers import TransformersEngine

            return TransformersEngine.load(files, settings)
        import ctranslate2

        place = choose_placement(settings, ctranslate2)
        if place.device != "cpu":
            return CTranslate2Engine.load(files, settings)
        if find_spec("openvino") is None:
            return CTranslate2Engine.load(files, settings, _without)
        try:
            from whisper_api.engines.openvino import load_hybrid, precisions

            formats = precisions(settings.compute_type)
        except (ImportError, OSError, RuntimeError) as error:
            # Installed, but not for this machine; the other engine needs none of it.
            log.warning("OpenVINO is installed but does not run here: %s", error)
            return CTranslate2Engine.load(files, settings, _broken)
        return load_hybrid(files, settings, formats, own_competes=True)


def _broken(own: Parts, shortens: bool) -> Chosen:
    return Chosen(own, "ctranslate2", "OpenVINO does not run here (see the log)")


def _without(own: Parts, shortens: bool) -> Chosen:
    return Chosen(own, "ctranslate2", f"OpenVINO is not installed ({INSTALL})")
