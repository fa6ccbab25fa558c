"""Every setting, once: default, limits and prose; the environment name and the CLI flag follow.

Order of precedence: CLI flags, environment (``WHISPER_API_<NAME>``), the JSON file, defaults.
"""

from whisper_api.config.access import KeyEntry
from whisper_api.config.audio import FileValidation
from whisper_api.config.load import load_settings
from whisper_api.config.server import RequestLogging
from whisper_api.config.settings import ENV_PREFIX, Settings, describe

__all__ = [
    "ENV_PREFIX",
    "FileValidation",
    "KeyEntry",
    "RequestLogging",
    "Settings",
    "describe",
    "load_settings",
]
