"""A self-hosted, OpenAI-compatible speech recognition server around Whisper models."""

from importlib.metadata import version

__version__ = version("whisper-api-server")
