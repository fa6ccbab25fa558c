"""``python -m whisper_api``: the same as the command ``whisper-api``."""

from whisper_api.cli import main

if __name__ == "__main__":
    main()
