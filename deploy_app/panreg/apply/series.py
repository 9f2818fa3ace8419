"""The moving series, resampled as an object says: the pair found and checked, its pixels read, the result written."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from panreg.apply.own_grid import stack_of_grid
from panreg.apply.transform import AppliedTransform
from panreg.dicom.frame import Frame
from panreg.failures import Code, Failure
from panreg.ingest.decode import read_stack
from panreg.ingest.scan import scan
from panreg.ingest.stack import AnyStack, FrameGroup, Stack, accepted
from panreg.ingest.stacks import find_stacks
from panreg.objects.deformable.reader import DeformableRegistration, Deformation, read_deformable_registration
from panreg.objects.provenance import VERSION, Provenance
from panreg.objects.registered_series import write_registered_series
from panreg.pairing.conformity import check_conformity
from panreg.pairing.identity import check_patient
from panreg.registration.preparation import outside_value, without_padding
from panreg.registration.result import Registration
from panreg.registration.straight import grid_of_result
from panreg.settings import PairSettings, Settings, digest

__all__ = ["MatchedObject", "apply_registration", "match_series"]


@dataclass(frozen=True, eq=False)
class MatchedObject:
    """An object, and the two stacks that it is applied to.

    Args:
        registration: the object.
        sha256: of its file.
        deformation: the item of it that moves the moving stack.
        moving: stack that it moves.
        fixed: stack in the object's frame of reference that the result lies on, or the object's own grid.
        warnings: what a person should look at, without patient data.
    """

    registration: DeformableRegistration
    sha256: str
    deformation: Deformation
    moving: Stack
    fixed: Stack
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _RegistrationObject(FrameGroup):
    """The object among stacks, where patients are compared."""

    frames: tuple[Frame, ...]
    warnings: tuple[str, ...] = ()


def match_series(path: Path, moving_folder: Path, fixed_folder: Path | None, settings: Settings) -> MatchedObject:
    """Read an object, and find the series that it is applied to; no pixel is read.

    Args:
        path: the object.
        moving_folder: holds the series that it moves.
        fixed_folder: holds a series in the object's frame of reference; None for the object's own grid.
        settings: limits, grid, and how the patient is checked.

    Raises:
        Failure: there is no such series, or several, or no item of the object moves it; images and object are not one
            patient's (E_PATIENT).
    """
    registration = read_deformable_registration(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    moving = _moving_stack(registration, moving_folder, settings)
    deformation = registration.deformation_of(moving)
    notes: tuple[str, ...] = ()
    if fixed_folder is None:
        fixed = stack_of_grid(registration, deformation, path)
    else:
        fixed, notes = grid_of_result(_fixed_stack(registration, fixed_folder, settings), settings.grid)
    warnings = _check(_RegistrationObject((Frame(path, registration.header),)), fixed, moving, settings.pair)
    if fixed.frame_of_reference_uid != registration.frame_of_reference_uid:
        raise Failure(Code.E_NO_MATCH, "The fixed series lies in another space than the registration object.")
    return MatchedObject(registration, sha256, deformation, moving, fixed, (*notes, *warnings))


def apply_registration(matched: MatchedObject, settings: Settings, clock: datetime, folder: Path) -> list[Path]:
    """Write the moving image on the fixed voxels, as the object's displacements say.

    Args:
        matched: the object and its stacks.
        settings: series number, padding, label.
        clock: when it began.
        folder: gets the files.

    Raises:
        Failure: the pixels can't be decoded.
    """
    fixed, moving = matched.fixed, matched.moving
    transform = AppliedTransform(matched.deformation, fixed, moving)
    volume = read_stack(moving)
    values = without_padding(volume, outside_value(settings, moving))
    provenance = Provenance(
        fixed.sop_instance_uids,
        moving.sop_instance_uids,
        weights_sha256=None,  # no network takes part
        config_sha256=digest(settings, "cpu"),
        version=VERSION,
        clock=clock,
        applied_sha256=matched.sha256,
    )
    overview = np.zeros((0, 0, 3), np.uint8)
    result = Registration(fixed, moving, values, transform, {}, overview, moving_padding=volume.padding)
    uid = str(matched.registration.header.SOPInstanceUID)
    return write_registered_series(result, provenance, settings, folder, uid)


def _check(registration: FrameGroup, fixed: Stack, moving: Stack, settings: PairSettings) -> tuple[str, ...]:
    """Hold object and images to what a pair is held to before it is registered."""
    how = settings.patient_check, settings.patient_conflict
    for role, stack in (("moving", moving), ("fixed", fixed)):
        check_patient(registration, stack, *how, names=("registration object", role))
    return check_patient(fixed, moving, *how) + check_conformity(fixed, moving, settings.invalid_uids)


def _usable(stacks: Sequence[AnyStack], what: str) -> Stack:
    """Take the one stack there is, unless it was refused."""
    if len(stacks) != 1:
        code = Code.E_AMBIGUOUS if stacks else Code.E_NO_INPUT
        raise Failure(code, f"The folder of the {what} series has {len(stacks)} series that fit; one must.")
    return accepted(stacks[0])


def _moving_stack(registration: DeformableRegistration, folder: Path, settings: Settings) -> Stack:
    """Find the series that the object names, or else the only one."""
    stacks = find_stacks(scan(folder, settings.limits))
    named = {uid for item in registration.items if item.grid is not None for uid in item.sop_instance_uids}
    return _usable([s for s in stacks if named.intersection(s.sop_instance_uids)] or stacks, "moving")


def _fixed_stack(registration: DeformableRegistration, folder: Path, settings: Settings) -> Stack:
    """Find the series in the object's frame of reference, or else the only one (which is then refused)."""
    stacks = find_stacks(scan(folder, settings.limits))
    uid = registration.frame_of_reference_uid
    return _usable([s for s in stacks if s.header.get("FrameOfReferenceUID") == uid] or stacks, "fixed")
