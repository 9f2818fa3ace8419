"""Propagated segmentations as objects: their measures, their series, and what can't be written."""

import numpy as np
import pydicom
import pytest
from panreg.objects.required_attributes import missing
from panreg.objects.segmentation import propagation
from panreg.objects.segmentation.propagation import propagate_segmentations
from panreg.registration.straight import grid_of_result
from panreg.settings import Settings
from propagated import as_multi_frame, propagate
from segments import masks_on, write_segmentation
from synthetic import (
    FIXED_AFFINE,
    MOVING_AFFINE,
    MOVING_SHAPE,
    provenance_of,
    registration_of,
    stack_of,
    uid,
    write_phantom_pair,
)

MASKS = masks_on(MOVING_SHAPE, MOVING_AFFINE)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    fixed, moving = write_phantom_pair(tmp_path_factory.mktemp("pair"))
    return stack_of(fixed, FIXED_AFFINE), stack_of(moving, MOVING_AFFINE)


def with_thickness(pair, value):
    """The pair with another thickness of the fixed slices; None for none."""
    fixed = stack_of([frame.path for frame in pair[0].frames], FIXED_AFFINE)
    for frame in fixed.frames:
        frame.header.SpacingBetweenSlices = "7"  # what a header says of it isn't asked
        frame.header.SliceThickness = value
        if value is None:
            del frame.header.SliceThickness
    return fixed, pair[1]


def forget(measures):
    """Take an attribute that is None out, as converters do."""
    if measures.SliceThickness is None:
        del measures.SliceThickness


def measures_of(path):
    return pydicom.dcmread(path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]


@pytest.mark.parametrize(("told", "written"), [(None, 4), ("", 4), ("0", 4), ("-1", 4), ("2.5", 2.5)])
@pytest.mark.parametrize("multi_frame", [False, True])
def test_slices_without_a_thickness_are_as_thick_as_their_distance(pair, tmp_path, told, written, multi_frame):
    stacks = with_thickness(pair, told)
    if multi_frame:
        header = stacks[0].header
        header.setdefault("SliceThickness", None)
        stacks = as_multi_frame(stacks[0]), stacks[1]
        forget(stacks[0].header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0])
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], MASKS)
    result = propagate(stacks, source, tmp_path / "out")
    assert result.warnings == ()
    measures = measures_of(result.paths[0])
    assert float(measures.SliceThickness) == pytest.approx(written)
    assert float(measures.SpacingBetweenSlices) == pytest.approx(4)


def test_slices_of_a_straightened_series_are_as_thick_as_their_distance_too(pair, tmp_path):
    sheared = FIXED_AFFINE.copy()
    sheared[:3, 2] += 0.3 * FIXED_AFFINE[:3, 1]
    stacks = with_thickness(pair, None)
    fixed, _ = grid_of_result(type(pair[0])(stacks[0].frames, sheared), "auto")
    registration = registration_of(fixed, pair[1], np.zeros(MOVING_SHAPE), is_straightened=True)
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], MASKS)
    run = provenance_of(*pair), Settings()
    (path,) = propagate_segmentations(registration, [source], *run, tmp_path).paths
    assert float(measures_of(path).SliceThickness) == pytest.approx(4)


def test_what_highdicom_refuses_is_told_and_ends_no_run(pair, tmp_path, monkeypatch):
    def refused(*_, **__):
        raise TypeError("of Canary^Test")

    monkeypatch.setattr(propagation, "build_segmentation", refused)
    result = propagate(pair, write_segmentation(tmp_path / "seg.dcm", pair[1], MASKS), tmp_path / "out")
    reason = "no Segmentation object can be made of it (TypeError)"
    assert result.warnings == (f"Segmentation 1 was not propagated: {reason}.",)
    assert result.paths == ()


def test_a_segmentation_has_its_uids_whatever_else_was_drawn(pair, tmp_path):
    """One SOP Instance UID in two series would be two objects for one to an archive."""

    def other(ds):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid("segmentation", "other")

    one = write_segmentation(tmp_path / "one.dcm", pair[1], MASKS)
    two = write_segmentation(tmp_path / "two.dcm", pair[1], MASKS, edit=other)
    registration = registration_of(*pair, np.zeros(MOVING_SHAPE))

    def written(name, sources):
        (tmp_path / name).mkdir()
        result = propagate_segmentations(registration, sources, provenance_of(*pair), Settings(), tmp_path / name)
        return [pydicom.dcmread(path) for path in result.paths]

    (alone,), both = written("alone", [one]), written("both", [two, one])
    assert [missing(ds) for ds in both] == [[], []]
    assert (alone.SOPInstanceUID, alone.SeriesInstanceUID) == (both[1].SOPInstanceUID, both[1].SeriesInstanceUID)
    assert len({ds.SeriesInstanceUID for ds in both}) == len({ds.SOPInstanceUID for ds in both}) == 2
    assert {ds.InstanceNumber for ds in both} == {1}
