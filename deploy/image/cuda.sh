#!/bin/sh
# Usage: deploy/image/cuda.sh FOLDER
# Adds NVIDIA's libraries that CTranslate2 opens on GPUs to the environment in FOLDER, and links
# them in FOLDER/cuda, which the image names in LD_LIBRARY_PATH.
set -eu

folder=$1
# CTranslate2 4 is linked against CUDA 12 and cuDNN 9.
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --no-cache-dir "nvidia-cublas-cu12>=12,<13" "nvidia-cudnn-cu12>=9,<10"
mkdir -p "$folder/cuda"
find "$folder"/lib/python3.*/site-packages/nvidia -name 'lib*.so*' \
    -exec ln -sf {} "$folder/cuda/" \;
ls "$folder/cuda/libcublas.so.12" "$folder/cuda/libcudnn.so.9" >/dev/null
