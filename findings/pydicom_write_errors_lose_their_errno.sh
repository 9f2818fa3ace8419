#!/usr/bin/env bash
# pydicom 3.0.2.
# Where the disk has no room left, or a file grows beyond what the process may write, Python raises an OSError whose
# errno says so (ENOSPC, EDQUOT, EFBIG). While `Dataset.save_as` writes an element, pydicom catches it and raises
# another of the same class, made of a text that holds the element's tag and the whole traceback: its errno is None.
# The number is left in `__cause__` alone.
# It surprises because code that tells a full disk from other failures by `error.errno == errno.ENOSPC` works for
# every other file that it writes, and silently takes the wrong branch here; and because the first line of the text
# names a tag, as if the value were wrong.
# Seen, for an image of 512 kB in a process that may write files of 100 kB: OSError, errno None, "With tag (7FE0,0010)
# got exception: [Errno 27] File too large"; its cause: OSError, errno 27 (EFBIG).
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2
cd "$folder"
cat > full.py <<'PY'
import errno
import resource
import signal
import sys

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

SIDE, MOST = 512, 100_000  # bytes that a file may have, as a quota or a full disk would have it

data = Dataset()
data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, generate_uid()
data.Rows = data.Columns = SIDE
data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
data.PixelData = bytes(SIDE * SIDE * 2)
data["PixelData"].VR = "OW"
data.file_meta = FileMetaDataset()
data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = MRImageStorage, data.SOPInstanceUID
data.save_as("whole.dcm", enforce_file_format=True)  # there is nothing wrong with it

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (MOST, MOST))


def failure(write):
    try:
        write()
    except OSError as error:
        return error
    sys.exit("changed: more was written than may be")


plain = failure(lambda: [open("plain", "ab", buffering=0).write(bytes(MOST)) for _ in range(2)])
ours = failure(lambda: data.save_as("cut.dcm", enforce_file_format=True))
for name, error in (("a file", plain), ("save_as", ours), ("its cause", ours.__cause__)):
    print(f"{name}: {type(error).__name__}, errno {error.errno}, {str(error).splitlines()[0]}")
if not (
    plain.errno == errno.EFBIG
    and type(ours) is OSError
    and ours.errno is None
    and "(7FE0,0010)" in str(ours).splitlines()[0]
    and ours.__cause__ is not None
    and ours.__cause__.errno == errno.EFBIG
):
    sys.exit("changed: what pydicom says of a file that cannot be written whole")
PY
"$folder/venv/bin/python" full.py
