#!/bin/sh
# Usage: deploy/image/install.sh FOLDER [EXTRAS]
# Installs the server of the current folder into the virtual environment in FOLDER, which is made
# where there is none, with exact versions (constraints.txt). EXTRAS: parts of pyproject.toml
# between commas. pip compiles what it installs, so the image may be read-only.
set -eu

folder=$1
extras=${2:-}

[ -x "$folder/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --no-cache-dir --constraint constraints.txt ".${extras:+[$extras]}"

"$folder/bin/whisper-api" --version
