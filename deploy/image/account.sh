#!/bin/sh
# Usage: deploy/image/account.sh [ROOT]
# Makes the account that the server runs as, and the one folder that it may write. ROOT is the root
# of another file system (for tests).
set -eu

root=${1:-}
groupadd ${root:+--prefix "$root"} --gid 10001 whisper
useradd ${root:+--prefix "$root"} --uid 10001 --gid 10001 --no-create-home --home-dir /data \
    --shell /usr/sbin/nologin whisper
install -d -m 0750 -o 10001 -g 10001 "$root/data"
