#!/bin/sh
# Everything from nothing: packages, voices, training, export, measurement. Stop and start at will.
#   training/run.sh [MINUTES] [FOLDER OF HUMAN DIGITS]
set -eu
cd "$(dirname "$0")"
minutes="${1:-180}"
human="${2:-}"
if [ "$(id -u)" = 0 ] && [ "${SKIP_APT:-}" != 1 ]; then ./setup-debian.sh; fi
if [ ! -x .venv/bin/python ]; then
    python3 -m venv .venv
    .venv/bin/pip install -r requirements.txt
    .venv/bin/pip install --no-deps openai-whisper==20250625
fi
cores="$(nproc)"
part=0
while [ "$part" -lt "$cores" ]; do
    .venv/bin/python data.py --part "$part" --parts "$cores" &
    part=$((part + 1))
done
wait
.venv/bin/python train.py --minutes "$minutes"
.venv/bin/python export.py --checkpoint runs/last.pt
.venv/bin/python sample.py --check || .venv/bin/python sample.py
if [ -n "$human" ]; then
    .venv/bin/python evaluate.py --write --human "$human"
else
    .venv/bin/python evaluate.py --write
fi
.venv/bin/python export.py --manifest-only --checkpoint runs/last.pt
.venv/bin/python checkpoint.py
