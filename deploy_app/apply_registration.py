"""Apply a Deformable Spatial Registration object, ours or another's, to the series that it moves.

    python deploy_app/apply_registration.py --registration X.dcm --moving SERIES --output OUT [--fixed SERIES]

With ``--fixed``, a series in the object's frame of reference (the fixed images, or an earlier registered series), the
result lies on that series' voxels; where its slices are sheared, on a straight grid of the same planes unless ``--grid
original`` is given. Without it, the result lies on the object's own grid, its voxels the points at which
the object stores displacements. The result is a registered series in ``OUT/registered/``: complete, or not there.
"""

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from panreg.dicom.elements import decimal
from panreg.dicom.frame import Frame
from panreg.failures import Code, Failure
from panreg.ingest.decode import read_stack
from panreg.ingest.scan import scan
from panreg.ingest.stack import AnyStack, Stack, accepted
from panreg.ingest.stacks import find_stacks
from panreg.objects.deformable.reader import DeformableRegistration, Deformation, read_deformable_registration
from panreg.objects.deformable.vector_grid import slabs
from panreg.objects.provenance import VERSION, Provenance
from panreg.objects.registered_series import write_registered_series
from panreg.registration.result import Array, Registration
from panreg.registration.straight import grid_of_result
from panreg.settings import CHOICES, Settings
from pydicom import Dataset
from scipy.ndimage import map_coordinates

__all__ = ["AppliedTransform", "apply_registration", "main", "stack_of_grid"]

ORDERS = {"linear": 1, "nearest": 0}


@dataclass(frozen=True, eq=False)
class AppliedTransform:
    """A ``Transform`` from an object that was read: what the object leaves undefined is outside.

    Args:
        deformation: the object's item.
        fixed: stack that the result lies on.
        moving: stack that is pulled.
        field_grid: nothing: the series' writer does not ask.
    """

    deformation: Deformation
    fixed: Stack
    moving: Stack
    field_grid: Any = None

    def displacement_at(self, points_mm: Any, extend: bool = False) -> torch.Tensor:
        """D(x) for points (…, 3), mm, LPS: (…, 3), float64; NaN where undefined."""
        return self.deformation.displacement_at(points_mm)

    def resample(self, image: torch.Tensor, *, mode: str = "linear") -> torch.Tensor:
        """Pull (C, columns, rows, slices) of the moving stack to the fixed one; zero outside."""
        inverse = np.linalg.inv(self.moving.affine)
        pulled = np.empty((len(image), *self.fixed.shape), dtype=np.float32)
        for planes, points in slabs(self.fixed.shape, self.fixed.affine):
            index = (points + self.displacement_at(points).numpy()) @ inverse[:3, :3].T + inverse[:3, 3]
            coordinates = np.moveaxis(np.nan_to_num(index, nan=-1e6), -1, 0)
            for channel, values in zip(pulled, image.numpy()):
                channel[planes] = map_coordinates(values, coordinates, order=ORDERS[mode], mode="grid-constant")
        return torch.from_numpy(pulled).permute(0, 3, 2, 1).to(image.dtype)


def apply_registration(
    registration: DeformableRegistration,
    moving: Stack,
    moving_values: Array,
    fixed: Stack,
    provenance: Provenance,
    settings: Settings,
    folder: Path,
) -> list[Path]:
    """Write the moving image on the fixed voxels, as an object's displacements say.

    Args:
        registration: the object.
        moving: stack that it moves.
        moving_values: modality values of it, without source padding.
        fixed: stack in the object's frame of reference, or ``stack_of_grid``.
        provenance: of this run.
        settings: series number, padding, label.
        folder: gets the files.

    Raises:
        Failure: the images are another patient's (E_PATIENT), or not those of the object (E_NO_MATCH).
    """
    check_patient(registration.header, moving.header, fixed.header)
    if fixed.frame_of_reference_uid != registration.frame_of_reference_uid:
        raise Failure(Code.E_NO_MATCH, "The fixed series lies in another space than the registration object.")
    transform = AppliedTransform(registration.deformation_of(moving), fixed, moving)
    applied = Registration(fixed, moving, moving_values, transform, {}, np.zeros((0, 0, 3), np.uint8))
    return write_registered_series(applied, provenance, settings, folder, str(registration.header.SOPInstanceUID))


def check_patient(*headers: Dataset) -> None:
    """Refuse images and objects of different patients.

    Raises:
        Failure: E_PATIENT.
    """
    patients = {str(header.get("PatientID") or "").strip() for header in headers}
    if len(patients) != 1 or "" in patients:
        raise Failure(Code.E_PATIENT, "PatientID differs or is absent: series and object must be one patient's.")


def stack_of_grid(registration: DeformableRegistration, deformation: Deformation, path: Path) -> Stack:
    """Build a stack without images on an object's own grid, in the object's patient and study.

    Raises:
        Failure: E_NO_MATCH if the object has no grid.
    """
    if deformation.grid is None:
        raise Failure(Code.E_NO_MATCH, "The registration object has no grid for this series; name a fixed series.")
    affine, (slices, rows, columns) = deformation.grid.affine, deformation.grid.vectors.shape[:3]
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    header = Dataset()
    header.update({element.tag: element for element in registration.header})
    header.Rows, header.Columns, header.SliceThickness = rows, columns, decimal(sides[2])
    header.PixelSpacing = [decimal(sides[1]), decimal(sides[0])]
    header.ImageOrientationPatient = [decimal(value) for value in (affine[:3, :2] / sides[:2]).T.ravel()]
    frames = []
    for k in range(slices):
        plane = Dataset()
        plane.update({element.tag: element for element in header})
        plane.ImagePositionPatient = [decimal(value) for value in affine[:3, 3] + k * affine[:3, 2]]
        frames.append(Frame(path, plane))
    return Stack(tuple(frames), affine)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser("apply_registration.py", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--registration", type=Path, required=True, help="Deformable Spatial Registration object")
    parser.add_argument("--moving", type=Path, required=True, help="folder of the series that moves")
    parser.add_argument("--output", type=Path, required=True, help="folder that gets registered/")
    parser.add_argument("--fixed", type=Path, help="folder of a series whose voxels the result takes")
    parser.add_argument("--grid", choices=CHOICES["grid"], default="auto", help="whether a sheared one is straightened")
    options = parser.parse_args(arguments)
    try:
        settings = Settings(grid=options.grid)
        paths = _run(options.registration, options.moving, options.output, options.fixed, settings)
    except Failure as failure:
        print(f"error: {failure.message} ({failure.code.value})", file=sys.stderr)  # noqa: T201
        return failure.code.exit_code
    except OSError as error:
        print(f"error: The output can't be written: {os.strerror(error.errno or 0)}.", file=sys.stderr)  # noqa: T201
        return Code.E_OUTPUT.exit_code
    print(f"{len(paths)} images in {options.output / 'registered'}")  # noqa: T201
    return 0


def _run(
    registration_path: Path, moving_folder: Path, output: Path, fixed_folder: Path | None, settings: Settings
) -> list[Path]:
    registration = read_deformable_registration(registration_path)
    moving = _moving_stack(registration, moving_folder, settings)
    if fixed_folder is None:
        fixed = stack_of_grid(registration, registration.deformation_of(moving), registration_path)
    else:
        fixed, notes = grid_of_result(_fixed_stack(registration, fixed_folder, settings), settings.grid)
        for note in notes:
            print(note, file=sys.stderr)  # noqa: T201
    check_patient(registration.header, moving.header, fixed.header)  # before a pixel is read
    volume = read_stack(moving)
    values = volume.values
    if volume.padding is not None:
        values = np.where(volume.padding, np.float32(settings.padding[moving.modality]), values)
    digest = hashlib.sha256(registration_path.read_bytes()).hexdigest()
    provenance = Provenance(
        fixed.sop_instance_uids,
        moving.sop_instance_uids,
        weights_sha256=digest,  # what the field comes from
        config_sha256=hashlib.sha256(repr(settings).encode()).hexdigest(),
        version=VERSION,
        clock=datetime.now(),
    )
    with _all_or_nothing(output / "registered") as folder:
        return apply_registration(registration, moving, values, fixed, provenance, settings, folder)


def _usable(stacks: Sequence[AnyStack], what: str) -> Stack:
    """Take the one stack there is, unless it was refused."""
    if len(stacks) != 1:
        code = Code.E_AMBIGUOUS if stacks else Code.E_NO_INPUT
        raise Failure(code, f"The folder of the {what} series has {len(stacks)} series that fit; one must.")
    return accepted(stacks[0])


def _stacks(folder: Path, settings: Settings) -> tuple[AnyStack, ...]:
    return find_stacks(scan(folder, settings.limits))


def _moving_stack(registration: DeformableRegistration, folder: Path, settings: Settings) -> Stack:
    """Find the series that the object names, or else the only one."""
    stacks = _stacks(folder, settings)
    named = {uid for item in registration.items if item.grid is not None for uid in item.sop_instance_uids}
    return _usable([s for s in stacks if named.intersection(s.sop_instance_uids)] or stacks, "moving")


def _fixed_stack(registration: DeformableRegistration, folder: Path, settings: Settings) -> Stack:
    """Find the series in the object's frame of reference, or else the only one (which is then refused)."""
    stacks = _stacks(folder, settings)
    uid = registration.frame_of_reference_uid
    return _usable([s for s in stacks if s.header.get("FrameOfReferenceUID") == uid] or stacks, "fixed")


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[Path]:
    """Give a folder to write to, beside ``folder``; it takes that name at the end, or vanishes."""
    if folder.exists():
        raise Failure(Code.E_OUTPUT, "The output has a folder 'registered' already; name another output.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".registered-", dir=folder.parent))
    try:
        yield part
        part.chmod(0o755)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
