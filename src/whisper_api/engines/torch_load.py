"""A checkpoint from disk into the parts that compute: checked, then loaded by transformers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from whisper_api.checkpoint import Tensors, read_sizes, read_tokenizer
from whisper_api.convert import generation_settings
from whisper_api.engines.torch_align import Aligner
from whisper_api.engines.torch_features import LogMel
from whisper_api.engines.torch_generate import Generator
from whisper_api.engines.torch_memory import AUTOMATIC, AUTOMATIC_MPS, Room, plan
from whisper_api.engines.torch_network import Decoder
from whisper_api.engines.torch_parts import Parts, Streams, let_go
from whisper_api.engines.torch_place import TorchPlace, settle_attention
from whisper_api.engines.torch_rules import Rules
from whisper_api.engines.torch_trial import checked_attention, fitted
from whisper_api.errors import ModelBroken
from whisper_api.model_folder import ModelFiles
from whisper_api.tokens import WhisperTokenizer

log = logging.getLogger(__name__)


def load_parts(
    files: ModelFiles,
    place: TorchPlace,
    windows: int,
    width: int,
    alone: AbstractContextManager[Any],
) -> Parts:
    """Load the folder with room for ``windows`` of ``width`` rows, or fewer where memory is short.

    ``windows`` of 0 chooses.

    Raises:
        ModelBroken: a file is missing or broken, pickled, or no Whisper model.
        RuntimeError: torch's, where it does not fit.
    """
    sizes = read_sizes(files.path)
    Tensors(files.path)  # says in plain words what is wrong with the weights' files
    words = read_tokenizer(files.path)
    tokenizer = WhisperTokenizer(words, sizes.vocabulary)
    said = generation_settings(files.path, sizes, words)
    return build_parts(_model(files, place), tokenizer, said, place, windows, width, alone)


def build_parts(
    model: Any,
    tokenizer: WhisperTokenizer,
    said: Mapping[str, Any],
    place: TorchPlace,
    windows: int,
    width: int,
    alone: AbstractContextManager[Any],
) -> Parts:
    """The parts of a WhisperForConditionalGeneration that is loaded; its decoder is used up.

    ``said``: what ``generation_settings`` answers.
    """
    config, encoder = model.config, model.model.encoder
    device, dtype = torch.device(place.device), getattr(torch, place.dtype)
    settle_attention(place, torch)
    place = checked_attention(encoder, config.num_mel_bins, place)
    decoder = Decoder(model)
    rules = Rules(tokenizer, said["suppress_ids"], said["suppress_ids_begin"], decoder.size, device)
    heads = _heads(said["alignment_heads"], config.decoder_layers, decoder.heads)
    aligner = Aligner(decoder, tokenizer, heads)
    mel = LogMel(config.num_mel_bins, device)
    most = AUTOMATIC_MPS if device.type == "mps" else AUTOMATIC
    planned = plan(decoder, windows, width, dtype.itemsize, _free(device), most)
    if planned.items < windows:
        log.warning("batches are of %d windows, not %d: more does not fit", planned.items, windows)

    def make(room: Room) -> Parts:
        generator = Generator(decoder, rules, room, device, dtype, tokenizer, alone)
        streams = Streams.on(device)
        return Parts(encoder, tokenizer, mel, generator, aligner, device, dtype, place, streams)

    return fitted(make, planned, width, device)


def _model(files: ModelFiles, place: TorchPlace) -> Any:
    from transformers import WhisperForConditionalGeneration
    from transformers.utils import logging as library_log

    library_log.disable_progress_bar()
    model, found = WhisperForConditionalGeneration.from_pretrained(
        str(files.path),
        dtype=getattr(torch, place.dtype),
        attn_implementation=place.attention,
        device_map={"": place.device},
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    # transformers fills what is missing with random numbers.
    if missing := sorted(found["missing_keys"]):
        raise ModelBroken(f"The weights of {files.id!r} lack {missing[0]} ({len(missing)} in all).")
    return model.eval().requires_grad_(False)


def _free(device: Any) -> int | None:
    let_go(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        most, used = torch.mps.recommended_max_memory(), torch.mps.driver_allocated_memory()
        return max(0, int(most) - int(used))
    return None


def _heads(said: Sequence[Sequence[int]], layers: int, heads: int) -> list[tuple[int, int]]:
    """The pairs in the order of layers; those of another model's shape are of no use."""
    known = [(int(layer), int(head)) for layer, head in said if layer < layers and head < heads]
    if not known:
        known = [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)]
    return sorted(known)
