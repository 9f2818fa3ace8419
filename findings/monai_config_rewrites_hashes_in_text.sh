#!/usr/bin/env bash
# MONAI 1.6.1, torch 2.13.0.
# `ConfigParser` writes "::" for "#" in every text of a config, not in ids alone: a folder "study#1" that is a plain value
# of a bundle's config, in its JSON or from the command line of `monai.bundle run`, is looked for as "study::1", a title
# changes, and so does the text within an expression ("$len('a#b')" is 4). What sees the value before it is parsed
# (`parser["data"]`, `--data` echoed by the log) still shows the "#".
# It surprises because "#" is the older separator of the ids alone, as in "@network#channels", by the documents, and because
# nothing is said: the first sign is a missing file of a name that nobody gave.
# MONAI pull request 6955 (2023) made "::" the separator and "#" its alias.
# What helps: paths without "#", or a value that is no text until it is resolved, as an expression that joins with chr(35).
# Seen: /data/study::1, pair ::3 of 5, 4, and /data/study#1 by chr(35).
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > hashes.py <<'PY'
from monai.bundle import ConfigParser

config = {
    "network": {"channels": 8},
    "by_id": "@network#channels",
    "data": "/data/study#1",
    "title": "pair #3 of 5",
    "length": "$len('a#b')",
    "kept": "$'/data/study' + chr(35) + '1'",
}
parser = ConfigParser(config)
print("before it is parsed:", parser["data"])
assert parser["data"] == "/data/study#1"
found = {key: parser.get_parsed_content(key) for key in ("by_id", "data", "title", "length", "kept")}
for key, value in found.items():
    print(key.ljust(8), value)
assert found == {
    "by_id": 8,
    "data": "/data/study::1",
    "title": "pair ::3 of 5",
    "length": 4,
    "kept": "/data/study#1",
}
PY
"$folder/venv/bin/python" -W ignore hashes.py
