"""A self-hosted, OpenAI-compatible speech recognition server around Whisper models."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("whisper-api-server")
except PackageNotFoundError:  # a checkout that is not installed: benchmarks/gpu.py
    __version__ = "0+checkout"
