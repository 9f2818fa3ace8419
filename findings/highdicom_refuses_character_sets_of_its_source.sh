#!/usr/bin/env bash
# highdicom 0.28.2, pydicom 3.0.2.
# An object derived from a Japanese or Korean image cannot be made: highdicom takes the image's Specific Character Set
# over to the new object, and refuses it there. What the standard has these studies say, an empty first value and then
# ISO 2022 IR 87 or 149, is no value that it knows, nor is ISO_IR 6, the default repertoire said aloud.
# It surprises because nobody passes a character set: images, key objects, reports, segmentations and presentation states
# all take it from the source by default, and the code that does is the last step of an otherwise finished computation.
# PS3.3 C.12.1.1.2 gives an empty first value its meaning, ISO 2022 IR 6; PS3.5 annexes H and I print such data sets.
# What helps: hand over a copy of the source without the attribute, and set it on the object afterwards.
# Seen: ISO_IR 100 and ISO_IR 192 made; the other three ValueError.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check highdicom==0.28.2 pydicom==3.0.2
cd "$folder"
cat > derive.py <<'PY'
import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.uid import MRImageStorage, generate_uid


def source(character_set):
    """A slice of MR as far as a derived object looks at it."""
    image = Dataset()
    image.SpecificCharacterSet = character_set
    image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.Modality, image.StudyID, image.AccessionNumber = "MR", "1", ""
    image.PatientID, image.PatientName, image.PatientSex, image.PatientBirthDate = "1", "A^B", "", ""
    image.StudyDate, image.StudyTime, image.ReferringPhysicianName = "20240101", "120000", ""
    return image


seen = {}
for name, character_set in {
    "latin 1": "ISO_IR 100",
    "utf-8": "ISO_IR 192",
    "default": "ISO_IR 6",
    "japanese": ["", "ISO 2022 IR 87"],
    "korean": ["", "ISO 2022 IR 149"],
}.items():
    try:
        hd.sc.SCImage.from_ref_dataset(
            source(character_set),
            pixel_array=np.zeros((4, 4), np.uint8),
            photometric_interpretation="MONOCHROME2",
            bits_allocated=8,
            coordinate_system="PATIENT",
            series_instance_uid=generate_uid(),
            sop_instance_uid=generate_uid(),
            series_number=1,
            instance_number=1,
            manufacturer="none",
            patient_orientation=("L", "P"),
        )
        seen[name] = "made"
    except ValueError as error:
        seen[name] = f"ValueError: {error}"
print("RESULT", seen)
assert [seen[name] for name in ("latin 1", "utf-8")] == ["made", "made"], seen
assert all(seen[name].startswith("ValueError") for name in ("default", "japanese", "korean")), seen
PY
"$folder/venv/bin/python" -W ignore derive.py | grep "^RESULT"
