#!/bin/sh
# Makes tests/data/sox: a synthetic stereo input and what sox's own chain turns it into.
# Needs sox (14.4.2 made the committed files); the tests do not.
set -eu
cd "$(dirname "$0")"
mkdir -p sox
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Buzzes like voices: pitch, level in dB, seconds; silence between them.
index=10
for tone in 140:-3:0.4 210:-30:0.6 120:-12:0.3 180:-45:0.5 160:-6:0.5 230:-20:0.7 130:-38:0.4; do
    pitch=${tone%%:*}
    level=${tone#*:}
    sox -R -n -r 16000 -b 16 -c 1 "$work/$index.wav" \
        synth "${level#*:}" sawtooth "$pitch" tremolo 5 60 \
        gain -6 lowpass 1800 fade 0.02 0 0.05 gain "${level%%:*}" pad 0 0.15
    index=$((index + 1))
done
sox "$work"/1*.wav "$work/mono.wav"
sox -R "$work/mono.wav" -c 2 "$work/stereo.wav" remix 1 1v0.6
sox -R "$work/stereo.wav" sox/input.flac

chain() { # name rate level compand...
    name=$1 rate=$2 level=$3
    shift 3
    sox -R sox/input.flac -r "$rate" -c 1 -b 16 "$work/mono-$name.wav"
    sox -R "$work/mono-$name.wav" "$work/norm-$name.wav" norm "$level"
    sox -R "$work/norm-$name.wav" "$work/compand-$name.wav" compand "$@"
    sox -R "$work/compand-$name.wav" "sox/$name.flac" pad 2.0 1.0
}
chain old 8000 -0.55 0.3,1 -90,-90,-70,-50,-40,-15,0,0 -7 0 0.15
chain default 8000 -0.5 0.3,1 -90,-90,-70,-70,-60,-20,0,0 -5 0 0.2
chain wide 16000 -3 0.1,0.5 6:-70,-60,-20 -5 -90 0.1
ls -l sox
