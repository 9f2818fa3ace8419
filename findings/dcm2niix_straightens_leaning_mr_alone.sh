#!/usr/bin/env bash
# dcm2niix 1.0.20260724, pydicom 3.0.2, nibabel 5.4.2.
# Parallel slices whose first voxels do not lie right above each other make a stack that leans; each slice states its
# position. Of CT dcm2niix makes two images, one of which (`_Tilt_`) has each slice moved to where it belongs. Of MR
# with the same positions it makes one, as if the stack were upright: its slices stay shifted, and lie apart by the
# length of the leaning step. The sform says so, too, and nothing about a tilt is printed.
# It surprises because the same program can put it right, because the positions and not the modality tell that a stack
# leans, and because a sform can hold a shear.
# Seen, for a rod that stands upright, in 8 slices 5 mm apart that step by 1 mm in y, its place in the NIfTI image from
# the first slice to the last: CT y 0.0 to 0.0, z 0.0 to 35.0; MR y 0.0 to -7.0, z 0.0 to 35.7.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    dcm2niix==1.0.20260724 pydicom==3.0.2 nibabel==5.4.2 numpy==2.4.6
cd "$folder"
cat > stack.py <<'PY'
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

SLICES, APART, STEP, SIDE, ROD = 8, 5.0, 1.0, 32, 16
KINDS = {
    "CT": (CTImageStorage, {"KVP": "120", "RescaleIntercept": "0", "RescaleSlope": "1"}),
    "MR": (
        MRImageStorage,
        {"MRAcquisitionType": "2D", "ScanningSequence": "SE", "SequenceVariant": "NONE", "ScanOptions": ""}
        | {"EchoTime": "10", "RepetitionTime": "1000", "EchoTrainLength": "1", "MagneticFieldStrength": "1.5"},
    ),
}


def write(kind):
    sop_class, special = KINDS[kind]
    common = {"Modality": kind, "Manufacturer": "", "PatientName": "Rod", "PatientID": "1", "PatientPosition": "HFS"}
    common |= {"StudyDate": "20260101", "StudyTime": "120000", "StudyID": "1", "SeriesNumber": 1, "PatientSex": ""}
    common |= {"PatientBirthDate": "", "PositionReferenceIndicator": "", "Laterality": ""}
    common |= {"AcquisitionNumber": 1, "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "ProtocolName": "rod"}
    common |= {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1], "SliceThickness": APART}
    common |= {"Rows": SIDE, "Columns": SIDE, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
    common |= {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}
    common |= {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    common |= {"FrameOfReferenceUID": generate_uid(), "AccessionNumber": "", "ReferringPhysicianName": ""}
    Path(kind).mkdir()
    for k in range(SLICES):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
        for name, value in (common | special).items():
            setattr(data, name, value)
        data.InstanceNumber = k + 1
        data.ImagePositionPatient = [0, k * STEP, k * APART]
        pixels = np.full((SIDE, SIDE), 100, np.uint16)
        pixels[round(ROD - k * STEP), ROD] = 4000  # at y = ROD mm in every slice
        data.PixelData = pixels.tobytes()
        data.save_as(f"{kind}/{k}.dcm", enforce_file_format=True)


def rod(path):
    """Where the brightest voxel of each slice lies (y to the back, as in DICOM, and z), from that of the first."""
    image = nib.load(path)
    values = np.asarray(image.dataobj)
    voxels = [(*np.unravel_index(values[..., k].argmax(), values.shape[:2]), k) for k in range(values.shape[2])]
    places = nib.affines.apply_affine(image.affine, voxels)[:, 1:] * (-1, 1)
    return (places - places[0])[-1]


if sys.argv[1] == "write":
    for kind in KINDS:
        write(kind)
    sys.exit()

names = {kind: sorted(path.name for path in Path(kind).glob("*.nii")) for kind in KINDS}
print(names)
found = {"CT": rod("CT/rod_Tilt_1.nii"), "MR": rod("MR/rod.nii")}
for kind, last in found.items():
    print(f"{kind}: the upright rod, from the first slice to the last: y {last[0]:.1f} mm, z {last[1]:.1f} mm")
sform = nib.load("MR/rod.nii").header.get_sform()
print(sform)
log = Path("MR.txt").read_text()
upright = np.allclose(sform[:3, 2], (0, 0, np.hypot(APART, STEP)), atol=1e-3)
last = (SLICES - 1) * np.array([-STEP, np.hypot(APART, STEP)])
if not (
    names == {"CT": ["rod.nii", "rod_Tilt_1.nii"], "MR": ["rod.nii"]}
    and np.allclose(found["CT"], (0, (SLICES - 1) * APART), atol=0.05)
    and np.allclose(found["MR"], last, atol=0.05)
    and upright
    and "tilt" not in log.lower()
):
    sys.exit("changed: what dcm2niix makes of a stack that leans")
PY
"$folder/venv/bin/python" stack.py write
for kind in CT MR; do
    "$folder/venv/bin/dcm2niix" -f rod -o "$kind" "$kind" | tee "$kind.txt"
done
"$folder/venv/bin/python" stack.py check
