#!/bin/sh
# The speech synthesizers (used as programs: their sound, not their code, goes into the training set).
set -eu
apt-get update
apt-get install -y --no-install-recommends espeak-ng libespeak-ng1 flite libflite1 festival \
    festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts festvox-ru ffmpeg
