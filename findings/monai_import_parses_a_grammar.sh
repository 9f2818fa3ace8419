#!/usr/bin/env bash
# MONAI 1.6.1, jsonschema 4.26.0, rfc3987-syntax 1.1.0 (lark 1.3.1), torch 2.13.0.
# `import monai` imports jsonschema (monai.auto3dseg -> monai.bundle), and jsonschema imports every checker of its
# optional `format-nongpl` extra that is installed, one of which, rfc3987-syntax, builds a parser from a grammar while it
# is imported. So a package that asks for that extra, such as cyclonedx-bom or Jupyter's event system, makes every start of
# a MONAI program longer by seconds of CPU time, although nothing is validated.
# It surprises because neither MONAI nor the program uses the parser, and because a bill of materials or a notebook server
# in the same environment is not expected to change how fast an inference command starts.
# Seen (PyTorch's CPU build, on a busy machine): `import monai` takes 4.1 s of CPU time with the parser installed and 0.8 s
# without it; building the parser alone takes 2.8 s.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    monai==1.6.1 torch==2.13.0 numpy==2.4.6 "jsonschema[format-nongpl]==4.26.0" rfc3987-syntax==1.1.0 lark==1.3.1
cd "$folder"
cat > start.py <<'PY'
import sys
import time

import torch  # noqa: F401  (its own seconds are not MONAI's)

start = time.process_time()
import monai  # noqa: E402, F401

seconds = time.process_time() - start
print("rfc3987_syntax" in sys.modules, seconds)
PY
read -r with seconds_with < <("$folder/venv/bin/python" start.py 2>/dev/null | tail -1)
alone="$("$folder/venv/bin/python" -c 'import time; s = time.process_time(); import rfc3987_syntax; print(time.process_time() - s)')"
"$folder/venv/bin/pip" uninstall --quiet --yes rfc3987-syntax
read -r without seconds_without < <("$folder/venv/bin/python" start.py 2>/dev/null | tail -1)
echo "import monai: $seconds_with s of CPU with rfc3987-syntax (imported: $with), $seconds_without s without ($without); the parser alone: $alone s"
test "$with" = True
test "$without" = False
"$folder/venv/bin/python" -c "import sys; sys.exit(not float('$alone') > 0.5)"
