"""Stacks of enhanced images: of many frames, and of one each."""

import numpy as np
import pydicom
import pytest
from hazards import AFFINE, SHAPE, enhanced, enhanced_slices
from panreg.failures import Code
from panreg.ingest.stack import Stack
from pydicom import Dataset
from stacked import only_stack_in, refusal_of, stacks_in


def test_an_enhanced_image_is_placed_by_its_functional_groups(tmp_path):
    enhanced(tmp_path)
    stack = only_stack_in(tmp_path)
    assert isinstance(stack, Stack)
    assert [frame.number for frame in stack.frames] == list(range(12, 0, -1))
    assert len(stack.sop_instance_uids) == 1
    np.testing.assert_allclose(stack.affine, AFFINE, atol=1e-9)


def test_an_enhanced_image_of_several_orientations_is_refused(tmp_path):
    def edit(ds):
        other = pydicom.Dataset()
        other.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        ds.PerFrameFunctionalGroupsSequence[3].PlaneOrientationSequence = [other]

    enhanced(tmp_path, edit=edit)
    assert refusal_of(tmp_path) is Code.E_MIXED_ORIENTATION


def test_an_enhanced_image_with_fewer_groups_than_frames_is_refused(tmp_path):
    def edit(ds):
        del ds.PerFrameFunctionalGroupsSequence[-1]

    enhanced(tmp_path, edit=edit)
    assert refusal_of(tmp_path) is Code.E_NO_GEOMETRY


def test_a_part_of_a_concatenation_is_refused(tmp_path):
    enhanced(tmp_path, edit=lambda ds: setattr(ds, "ConcatenationUID", "1.2.3"))
    assert refusal_of(tmp_path) is Code.E_MISSING_SLICES


def test_enhanced_images_of_one_frame_each_are_one_stack(tmp_path):
    enhanced_slices(tmp_path)
    stack = only_stack_in(tmp_path)
    assert stack.shape == SHAPE
    np.testing.assert_allclose(stack.affine, AFFINE, atol=1e-4)
    assert len(stack.sop_instance_uids) == SHAPE[0]
    assert stack.warnings == ()


def test_enhanced_images_of_one_frame_each_are_split_by_their_functional_groups(tmp_path):
    def edit(ds, k):
        echo = Dataset()
        echo.EffectiveEchoTime = 3.0 if k < 6 else 8.5
        ds.PerFrameFunctionalGroupsSequence[0].MREchoSequence = [echo]

    enhanced_slices(tmp_path, edit)
    assert [stack.shape[0] for stack in stacks_in(tmp_path)] == [6, 6]


def test_an_enhanced_image_of_one_frame_without_place_refuses_the_whole_stack(tmp_path):
    def edit(ds, k):
        if k == 5:
            del ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence

    enhanced_slices(tmp_path, edit)
    assert refusal_of(tmp_path) is Code.E_NO_GEOMETRY


def framed(sequence, **values):
    """An edit that gives each frame one item of a macro: {keyword: its value at frame n of 12}."""

    def edit(ds):
        for n, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
            item = Dataset()
            for keyword, value_at in values.items():
                setattr(item, keyword, value_at(n))
            setattr(group, sequence, [item])

    return edit


MIXED = {
    "echoes that alternate": framed("MREchoSequence", EffectiveEchoTime=lambda n: 90.0 if n % 2 else 3.0),
    "diffusion": framed("MRDiffusionSequence", DiffusionBValue=lambda n: 0.0 if n < 6 else 1000.0),
    "stacks that adjoin": framed("FrameContentSequence", StackID=lambda n: "1" if n < 6 else "2"),
    "phases that adjoin": framed("FrameContentSequence", TemporalPositionIndex=lambda n: 1 if n < 6 else 2),
    "kinds": framed("MRImageFrameTypeSequence", FrameType=lambda n: ["ORIGINAL", "PRIMARY", "AB"[n % 2], "NONE"]),
}


@pytest.mark.parametrize("edit", MIXED.values(), ids=MIXED)
def test_an_enhanced_image_of_several_stacks_phases_or_contrasts_is_refused(tmp_path, edit):
    enhanced(tmp_path, edit=edit)
    assert refusal_of(tmp_path) is Code.E_MIXED_FRAMES


def test_two_stacks_apart_in_one_enhanced_image_are_called_so_and_not_missing_slices(tmp_path):
    def edit(ds):
        framed("FrameContentSequence", StackID=lambda n: "1" if n < 5 else "2")(ds)
        del ds.PerFrameFunctionalGroupsSequence[5:7]
        ds.NumberOfFrames = 10

    enhanced(tmp_path, edit=edit)
    assert "its frames differ in StackID;" in only_stack_in(tmp_path).refusal.message


@pytest.mark.parametrize(("first", "is_told"), [(1, False), (3, True)])
def test_a_hole_in_the_in_stack_position_numbers_is_told(tmp_path, first, is_told):
    edit = framed("FrameContentSequence", StackID=lambda n: "1", InStackPositionNumber=lambda n: n + first)
    enhanced(tmp_path, edit=edit)
    stack = only_stack_in(tmp_path)
    assert isinstance(stack, Stack)
    assert any("In-Stack Position Numbers" in warning for warning in stack.warnings) is is_told


def test_enhanced_images_of_one_frame_each_are_split_by_stack(tmp_path):
    def edit(ds, k):
        content = Dataset()
        content.StackID = "1" if k < 6 else "2"
        ds.PerFrameFunctionalGroupsSequence[0].FrameContentSequence = [content]

    enhanced_slices(tmp_path, edit)
    assert [stack.shape[0] for stack in stacks_in(tmp_path)] == [6, 6]
