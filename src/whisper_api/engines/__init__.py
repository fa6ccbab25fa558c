"""Engines by name; their heavy libraries load only when one is chosen."""

from __future__ import annotations

ENGINES: dict[str, str] = {
    "auto": "whisper_api.engines.auto:AutoEngine",
    "ctranslate2": "whisper_api.engines.ctranslate2:CTranslate2Engine",
    "openvino": "whisper_api.engines.openvino:OpenVinoEngine",
    "transformers": "whisper_api.engines.transformers:TransformersEngine",
    "fake": "whisper_api.engines.fake:FakeEngine",
}
"""Name -> ``module:Class``; a setting may also give ``module:Class`` itself."""
