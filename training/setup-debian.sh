#!/bin/sh
# The speech synthesizers (used as programs: their sound, not their code, goes into the training set).
set -eu
apt-get update
apt-get install -y --no-install-recommends espeak-ng libespeak-ng1 flite libflite1 festival \
    festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts festvox-ru ffmpeg \
    festvox-czech-dita festvox-czech-krb festvox-czech-machac festvox-czech-ph \
    festvox-italp16k festvox-itapc16k festvox-suopuhe-lj festvox-suopuhe-mv festival-hi festvox-hi-nsk
