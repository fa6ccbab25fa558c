#!/bin/sh
# The speech synthesizers (used as programs: their sound, not their code, goes into the training set).
set -eu
apt-get update
apt-get install -y --no-install-recommends espeak-ng libespeak-ng1 flite libflite1 festival \
    festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts festvox-ru ffmpeg \
    festvox-czech-dita festvox-czech-krb festvox-czech-machac festvox-czech-ph \
    festvox-italp16k festvox-itapc16k festvox-suopuhe-lj festvox-suopuhe-mv festival-hi festvox-hi-nsk

# Recorded speakers that Debian keeps outside main: RHVoice's and Pico's voices are free, but trained networks
# without their sources; two British ones ask for a lexicon that forbids commercial use, so only their recordings
# are unpacked. A list of apt's own, so that contrib and non-free do not stay enabled.
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/lists/partial"
apt-get indextargets "Created-By: Packages" "Component: main" "Label: Debian" --format \
    'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(REPO_URI) $(RELEASE) main contrib non-free' \
    | sort -u > "$folder/sources.list"
outside() {
    apt-get -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$folder/lists" "$@"
}
outside update
outside install -y --no-install-recommends librhvoice5 rhvoice-english rhvoice-russian libttspico0
cd "$folder"
outside download festvox-rablpc16k festvox-don
for package in festvox-*.deb; do dpkg-deb -x "$package" unpacked; done
mkdir -p /usr/local/share/festival/voices
cp -r unpacked/usr/share/festival/voices/english /usr/local/share/festival/voices/
