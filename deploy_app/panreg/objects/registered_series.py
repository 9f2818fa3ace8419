"""The registered image series: the moving image's values where the fixed image's voxels are."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from panreg.dicom.attributes import text
from panreg.dicom.elements import copy_elements, decimal, is_code
from panreg.dicom.frame import Frame
from panreg.dicom.functional_groups import holder_of, rescale_type_of
from panreg.ingest.stack import Stack
from panreg.objects.acquisition import copy_acquisition
from panreg.objects.highdicom_objects import IDENTIFIED
from panreg.objects.modules import (
    code,
    describe_equipment,
    describe_series,
    frame_references,
    new_object,
    reference,
    save,
)
from panreg.objects.provenance import Provenance
from panreg.objects.quantisation import Quantisation, quantisation_of
from panreg.registration.preparation import outside_value
from panreg.registration.result import Array, Registration
from panreg.settings import Settings
from pydicom import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, DeformableSpatialRegistrationStorage, MRImageStorage

__all__ = ["references_to_registered", "warp_moving", "write_registered_series"]

SOP_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage}
PLANE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
DEFAULT_KINDS = {"CT": "AXIAL", "MR": "OTHER"}  # value 3 of Image Type
STRIDE = 4
"""Voxels between the points of a plane whose displacement tells which moving slices contribute to it."""


def write_registered_series(
    registration: Registration,
    provenance: Provenance,
    settings: Settings,
    folder: Path,
    deformable_uid: str,
    flagged: bool = False,
) -> list[Path]:
    """Write the moving image, resampled once on the fixed image's voxels, one instance a plane.

    Args:
        registration: what was found; its ``moving_values`` hold no source padding any more.
        provenance: of the run.
        settings: series number, padding, label.
        folder: gets the files ``0001.dcm`` and so on, in stack order; made if absent.
        deformable_uid: SOP Instance UID of the Deformable Spatial Registration written beside.
        flagged: the result misses the quality limits; the Series Description says so.

    Returns:
        The paths, in stack order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fixed, moving = registration.fixed, registration.moving
    padding = outside_value(settings, moving)
    values, inside = warp_moving(registration, padding)
    whole = bool(np.array_equal(registration.moving_values, np.rint(registration.moving_values)))
    quantisation = quantisation_of(values, moving.modality, whole, rescale_type_of(moving.frames[0]))
    stored_padding = _free_padding(quantisation, values, inside & ~_source_padding(registration), padding)
    paths = []
    for k, frame in enumerate(fixed.frames):
        target = new_object(SOP_CLASSES[moving.modality], f"registered:{k + 1:04d}", fixed, provenance)
        _describe(target, registration, provenance, settings, flagged)
        target.InstanceNumber = k + 1
        _place(target, fixed, frame)
        copy_acquisition(target, moving)
        _derive(target, registration, k, settings.label, deformable_uid)
        quantisation.describe(target)
        quantisation.set_pixels(target, quantisation.stored(values[k]))
        if stored_padding is not None:
            target.add_new("PixelPaddingValue", "SS" if quantisation.signed else "US", stored_padding)
        paths.append(folder / f"{k + 1:04d}.dcm")
        save(target, paths[-1])
    return paths


def references_to_registered(registration: Registration, provenance: Provenance) -> list[Dataset]:
    """Build what other objects need of the registered series, in stack order: UIDs and geometry."""
    images = []
    for k, frame in enumerate(registration.fixed.frames):
        image = Dataset()
        copy_elements(image, Dataset(), IDENTIFIED, empty=True)
        _place(image, registration.fixed, frame)
        image.Rows, image.Columns = registration.fixed.shape[1:]
        image.Modality = registration.moving.modality
        image.SOPClassUID = SOP_CLASSES[registration.moving.modality]
        image.SOPInstanceUID = provenance.uid(f"registered:{k + 1:04d}")
        image.SeriesInstanceUID, image.StudyInstanceUID = (
            provenance.uid("registered:series"),
            registration.fixed.study_uid,
        )
        images.append(image)
    return images


def warp_moving(registration: Registration, padding: float) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Pull the moving image to the fixed image's voxels, with padding where nothing of it is.

    A volume of ones, pulled along, tells how much of each voxel is image. A voxel reaches half its width beyond its
    centre: up to there its value counts, and the zeros that the interpolation saw beyond are divided out.

    Returns:
        Modality values ``[k, j, i]`` and where they are image.
    """
    share = registration.pull(np.ones_like(registration.moving_values))
    values = registration.pull(registration.moving_values)
    inside = share >= 0.5  # False where the displacement is undefined (NaN)
    np.divide(values, share, out=values, where=inside)
    values[~inside] = padding
    return values, inside


def _source_padding(registration: Registration) -> npt.NDArray[np.bool_]:
    """Find the fixed voxels that the moving image's own padding fills by half or more, ``[k, j, i]``."""
    if registration.moving_padding is None:
        return np.zeros(registration.fixed.shape, dtype=np.bool_)
    whole = registration.pull(np.ones_like(registration.moving_values))
    padded = registration.pull(registration.moving_padding.astype(np.float32))
    return np.asarray((whole > 0) & (padded >= whole / 2))


def _free_padding(
    quantisation: Quantisation, values: Array, inside: npt.NDArray[np.bool_], padding: float
) -> int | None:
    """Find the stored padding value, or None where there is none or some image has it: the standard forbids it then."""
    if inside.all():
        return None
    stored = int(quantisation.stored(np.array([padding], dtype=np.float32))[0])
    taken = any((quantisation.stored(plane) == stored)[image].any() for plane, image in zip(values, inside))
    return None if taken else stored


def _describe(
    target: FileDataset, registration: Registration, provenance: Provenance, settings: Settings, flagged: bool
) -> None:
    """Write what all instances of the series share."""
    moving = registration.moving
    target.Modality, target.SeriesInstanceUID = moving.modality, provenance.uid("registered:series")
    target.SeriesNumber = settings.series_numbers["registered"]
    title = "REGISTERED (CHECK QUALITY)" if flagged else "REGISTERED"
    describe_series(target, title, moving)
    describe_equipment(target, provenance, "Deformable image registration")


def _place(target: Dataset, fixed: Stack, frame: Frame) -> None:
    """Put an instance where the fixed frame is, in the same words."""
    copy_elements(target, fixed.header, ["FrameOfReferenceUID", "PositionReferenceIndicator"], empty=True)
    copy_elements(target, frame.header, ["PatientPosition"], empty=True)
    for keyword in (*PLANE, "SliceThickness"):
        copy_elements(target, holder_of(frame, keyword), [keyword], empty=True)
    target.SpacingBetweenSlices = decimal(fixed.spacing_mm[2])


def _derive(target: FileDataset, registration: Registration, k: int, label: str, deformable_uid: str) -> None:
    """Say how the pixels of plane k came about, and from what."""
    fixed, moving = registration.fixed, registration.moving
    target.ImageType = ["DERIVED", "SECONDARY", _kind_of(moving), "REGISTERED"]
    target.DerivationDescription = (
        f"Deformed for registration, resampled once with linear interpolation. {label}".strip()
    )
    if label:
        target.ImageComments = label
    target.DerivationCodeSequence = Sequence(
        [code("125027", "DCM", "Deformed for Registration"), code("113085", "DCM", "Spatial resampling")]
    )
    sources = frame_references(_contributing(registration, k))
    for item in sources:
        item.PurposeOfReferenceCodeSequence = Sequence(
            [code("121322", "DCM", "Source image for image processing operation")]
        )
        item.SpatialLocationsPreserved = "NO"
    if sources:
        target.SourceImageSequence = Sequence(sources)
    if fixed.header.SOPClassUID != DeformableSpatialRegistrationStorage:  # whose own grid has no images
        target.ReferencedImageSequence = Sequence(frame_references([fixed.frames[k]]))
    target.SourceInstanceSequence = Sequence([_deformable_reference(deformable_uid)])


def _kind_of(moving: Stack) -> str:
    """Read value 3 of Image Type; the modality's usual one of an enhanced image, or where it breaks the standard."""
    is_classic = moving.frames[0].number is None
    values = (text(moving.header, "ImageType") or "").split("\\") if is_classic else []
    kind = values[2].strip() if len(values) > 2 else ""
    return kind if is_code(kind) else DEFAULT_KINDS[moving.modality]


def _deformable_reference(uid: str) -> FileDataset:
    instance = FileDataset("", {})
    instance.SOPClassUID, instance.SOPInstanceUID = DeformableSpatialRegistrationStorage, uid
    item = reference(instance)
    item.PurposeOfReferenceCodeSequence = Sequence([code("125028", "DCM", "Source Deformable Spatial Registration")])
    return item


def _contributing(registration: Registration, k: int) -> Iterator[Frame]:
    """Yield the moving frames between the first and the last that the points of plane k fall on."""
    fixed, moving = registration.fixed, registration.moving
    rows, columns = (np.unique([*range(0, n, STRIDE), n - 1]) for n in fixed.shape[1:])
    index = np.stack(np.broadcast_arrays(columns[None], rows[:, None], k, 1), -1)
    points = (index @ fixed.affine.T)[..., :3]
    moved = points + registration.transform.displacement_at(points).numpy()
    inverse = np.linalg.inv(moving.affine)
    found = (moved @ inverse[:3, :3].T + inverse[:3, 3]).reshape(-1, 3)
    last = np.array(moving.shape[::-1]) - 1
    found = found[((found > -0.5) & (found < last + 0.5)).all(-1)]
    if len(found):
        slices = np.clip([np.floor(found[:, 2].min()), np.ceil(found[:, 2].max())], 0, last[2]).astype(int)
        yield from moving.frames[slices[0] : slices[1] + 1]
