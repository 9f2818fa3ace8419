"""Synthetic DICOM series, and the semantic phantom: two oblique, anisotropic series and the field between them."""

from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import torch
from panreg.dicom.frame import Frame
from panreg.ingest.stack import Stack
from panreg.objects.provenance import Provenance
from panreg.registration.result import Registration
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

SOP_CLASSES = {"MR": "1.2.840.10008.5.1.4.1.1.4", "CT": "1.2.840.10008.5.1.4.1.1.2"}
CLOCK = datetime(2024, 5, 17, 10, 30, 0)
PROVENANCE_OPTIONS = {"weights_sha256": "a" * 64, "config_sha256": "b" * 64, "version": "0.1.0", "clock": CLOCK}


def rotation(axis, degrees):
    """Rotation matrix about x, y or z."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = [n for n in range(3) if n != "xyz".index(axis)]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = (-s, s) if axis != "y" else (s, -s)
    return matrix


def affine_of(direction, spacing, origin):
    """(i, j, k, 1) to LPS mm from direction (columns), spacing (i, j, k) and origin."""
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(spacing, dtype=float)
    affine[:3, 3] = origin
    return affine


FIXED_SHAPE, MOVING_SHAPE = (24, 40, 48), (28, 44, 44)  # slices, rows, columns
FIXED_AFFINE = affine_of(rotation("x", 12) @ rotation("z", -7), (2.5, 3, 4), (-58, -62, -50))
MOVING_AFFINE = affine_of(rotation("y", 5), (3.2, 2.8, 3.6), (-66, -60, -50))


def points_of(shape, affine):
    """LPS mm of all voxel centres of an array [k, j, i]: (k, j, i, 3)."""
    k, j, i = np.meshgrid(*[np.arange(n, dtype=float) for n in shape], indexing="ij")
    return np.stack([i, j, k], -1) @ affine[:3, :3].T + affine[:3, 3]


def scene(points):
    """Intensity of the phantom at points (…, 3)."""
    x, y, z = np.moveaxis(np.asarray(points), -1, 0)
    return (
        600 * np.exp(-((x / 45) ** 2 + (y / 55) ** 2 + (z / 40) ** 2))
        + 350 * np.exp(-(((x - 20) / 12) ** 2 + ((y + 15) / 10) ** 2 + ((z - 8) / 9) ** 2))
        + 250 * np.exp(-(((x + 22) / 9) ** 2 + ((y - 20) / 14) ** 2 + ((z + 10) / 11) ** 2))
    )


def displacement(points):
    """The known field D(x), LPS mm, fixed to moving: fixed(x) = scene(x + D(x)), moving = scene."""
    x, y, z = np.moveaxis(np.asarray(points), -1, 0)
    g = np.exp(-(x**2 + y**2 + z**2) / 3600)
    parts = 6 * np.sin(y / 25 + 0.4), -4 * np.cos(x / 30 - 0.3), 3 * np.sin((x + z) / 28 + 0.2)
    return np.stack([g * part for part in parts], -1)


def uid(*name):
    """A stable valid UID from words."""
    return pydicom.uid.generate_uid("1.2.826.0.1.3680043.10.1474.", entropy_srcs=["|".join(map(str, name))])


def slice_header(
    name, modality, affine, k, shape, patient, date, series_number, description, study, frame_of_reference
):
    """Header of slice k: valid for dciodvfy but for what the pixels add."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SOP_CLASSES[modality], uid(name, k)
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, uid("tests")
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.SOPInstanceUID = SOP_CLASSES[modality], uid(name, k)
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Canary^Test", patient, "19700101", "O"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study", study), uid("series", name)
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "1", "", ""
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid("frame", frame_of_reference), ""
    for prefix in ("Study", "Series", "Acquisition", "Content"):
        setattr(ds, f"{prefix}Date", date)
        setattr(ds, f"{prefix}Time", "101500")
    ds.Modality, ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = modality, series_number, 1, k + 1
    ds.SeriesDescription, ds.StudyDescription, ds.PatientPosition = description, "Head", "HFS"
    ds.Manufacturer, ds.BodyPartExamined = "Synthetic", "HEAD"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER" if modality == "MR" else "AXIAL"]
    if modality == "MR":
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = ["GR", "IR"], "SP", "", "3D"
        ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength, ds.InversionTime = 2000, 3, 1, 900
        ds.MagneticFieldStrength, ds.FlipAngle = 3, 8
    else:
        ds.KVP, ds.ConvolutionKernel = 120, "FC"
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    row, column = affine[:3, 0] / spacing[0], affine[:3, 1] / spacing[1]
    ds.ImageOrientationPatient = [format_number_as_ds(float(v)) for v in (*row, *column)]
    ds.ImagePositionPatient = [format_number_as_ds(float(v)) for v in affine[:3, 3] + k * affine[:3, 2]]
    ds.PixelSpacing = [format_number_as_ds(float(spacing[1])), format_number_as_ds(float(spacing[0]))]
    ds.SliceThickness = format_number_as_ds(float(abs(np.cross(row, column) @ affine[:3, 2])))
    ds.Rows, ds.Columns = shape[1:]
    return ds


def set_pixels(ds, stored):
    """Put stored values (rows, columns), whole numbers, into a header: 16 bits, signed if any is below 0."""
    signed = stored.min() < 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, int(signed)
    ds.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
    ds["PixelData"].VR = "OW"


def write_series(
    folder,
    stored,
    affine,
    name="fixed",
    modality="MR",
    patient="PAT-1",
    date="20240110",
    series_number=3,
    description="T1 MPRAGE",
    study=None,
    frame_of_reference=None,
    slope=None,
    intercept=0,
    edit=None,
):
    """Write stored values [k, j, i] as one single-frame instance a slice; the paths, in slice order.

    ``study`` and ``frame_of_reference`` are words made into UIDs (``name`` by default). ``edit(ds, k)`` changes a slice
    before it is saved.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stored = np.rint(np.asarray(stored))
    paths = []
    for k in range(len(stored)):
        ds = slice_header(
            *(name, modality, affine, k, stored.shape, patient, date, series_number, description),
            *(study or name, frame_of_reference or name),
        )
        set_pixels(ds, stored[k])
        if slope is not None or modality == "CT":
            ds.RescaleSlope, ds.RescaleIntercept = format_number_as_ds(float(slope or 1)), str(intercept)
            ds.RescaleType = "HU" if modality == "CT" else "US"
        if edit is not None:
            edit(ds, k)
        paths.append(folder / f"{name}_{k:04d}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_phantom_pair(folder, **options):
    """Write the semantic phantom as two studies, ``fixed/`` and ``moving/`` below ``folder``: both lists of paths."""
    fixed_points = points_of(FIXED_SHAPE, FIXED_AFFINE)
    fixed = scene(fixed_points + displacement(fixed_points))
    moving = scene(points_of(MOVING_SHAPE, MOVING_AFFINE))
    return (
        write_series(Path(folder) / "fixed", fixed, FIXED_AFFINE, name="fixed", date="20240110", **options),
        write_series(Path(folder) / "moving", moving, MOVING_AFFINE, name="moving", date="20230105", **options),
    )


def stack_of(paths, affine):
    """Build the stack of files in slice order, without the scan."""
    frames = [Frame(Path(p), pydicom.dcmread(p, stop_before_pixels=True)) for p in paths]
    return Stack(tuple(frames), np.asarray(affine, dtype=float))


def provenance_of(fixed, moving, **changes):
    """The provenance of a run on two stacks with its clock stopped."""
    return Provenance(fixed.sop_instance_uids, moving.sop_instance_uids, **(PROVENANCE_OPTIONS | changes))


class KnownTransform:
    """A ``Transform`` whose field is known in closed form: ``field(points)``, LPS mm, on stacks of any affine."""

    def __init__(self, fixed, moving, field=displacement, spacing_mm=2.0):
        self.fixed, self.moving, self.field = fixed, moving, field
        spacing = np.full(3, float(spacing_mm))
        self.field_grid = SimpleNamespace(
            shape=fixed.shape[::-1], affine=np.diag([*spacing, 1.0]), spacing_mm=spacing, origin_mm=np.zeros(3)
        )

    def displacement_at(self, points_mm, extend=False):
        points = torch.as_tensor(points_mm, dtype=torch.float64)
        return torch.from_numpy(np.ascontiguousarray(self.field(points.numpy())))

    def resample(self, image, *, mode="linear"):
        points = self.fixed.points().transpose(2, 1, 0, 3)
        inverse = np.linalg.inv(self.moving.affine)
        index = (points + self.field(points)) @ inverse[:3, :3].T + inverse[:3, 3]
        last = np.maximum(np.array(image.shape[1:]) - 1, 1)
        normalised = torch.from_numpy((2 * index / last - 1)[..., ::-1].copy())[None]
        kind = {"linear": "bilinear", "nearest": "nearest"}[mode]
        values = torch.nn.functional.grid_sample(
            image[None].double(), normalised, kind, padding_mode="zeros", align_corners=True
        )[0]
        return values.to(image.dtype if mode == "nearest" or image.is_floating_point() else torch.float32)


def registration_of(fixed, moving, moving_values, transform=None, **changes):
    """A finished registration of two stacks, by the known field unless another transform is given."""
    quality = {
        **{"similarity_before": 0.61, "similarity_after": 0.97, "folding_percent": 0.0},
        **{"mean_displacement_mm": 1.5, "max_displacement_mm": 6.2, "max_nonrigid_displacement_mm": 5.8},
        **{"foreground_similarity": 0.93, "foreground_dice": 0.97, "common_view_percent": 99.0},
        **{"rotation_degrees": 1.0, "stretch": 1.05, "volume_ratio": 1.02, "foreground_log_jacobian_sd": 0.2},
    }
    options = {"quality": quality, "overview": np.full((120, 180, 3), 90, np.uint8), "warnings": ()}
    transform = transform or KnownTransform(fixed, moving)
    return Registration(fixed, moving, np.asarray(moving_values, np.float32), transform, **(options | changes))


def phantom_registration(folder, transform=None, **options):
    """Write the semantic phantom and register it by the known field; ``options`` go to ``write_series``."""
    fixed_paths, moving_paths = write_phantom_pair(folder, **options)
    fixed, moving = stack_of(fixed_paths, FIXED_AFFINE), stack_of(moving_paths, MOVING_AFFINE)
    return registration_of(fixed, moving, np.rint(scene(moving.points())), transform)
