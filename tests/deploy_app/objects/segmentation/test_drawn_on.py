"""What was drawn on other images than the moving ones, though in their space, is left where it is."""

import numpy as np
import pydicom
import pytest
from propagated import MASKS, label_map, propagate, read_on_fixed
from pydicom.dataset import Dataset
from segments import CENTRES, write_segmentation
from structures import contours_of, write_structure_set
from synthetic import FIXED_AFFINE, MOVING_AFFINE, stack_of, uid, write_phantom_pair

OTHERS = "on other images than those of the moving series are left out"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    fixed, moving = write_phantom_pair(tmp_path_factory.mktemp("pair"))
    return stack_of(fixed, FIXED_AFFINE), stack_of(moving, MOVING_AFFINE)


def naming(*uids):
    items = []
    for sop_instance_uid in uids:
        items.append(Dataset())
        items[-1].ReferencedSOPInstanceUID = sop_instance_uid
    return items


def listed(stack, keyword="ContourImageSequence"):
    series = Dataset()
    series.SeriesInstanceUID = stack.series_uid
    setattr(series, keyword, naming(*stack.sop_instance_uids))
    return series


def drawing(stack, mask=0):
    """The contours of a mask, said to be drawn on the images of a stack."""
    items = contours_of(MASKS[..., mask], MOVING_AFFINE)
    for n, item in enumerate(items):
        item.ContourImageSequence = naming(stack.sop_instance_uids[n % len(stack.frames)])
    return items


def without_series(ds):
    del ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence


@pytest.mark.parametrize("lists", ["no series", "both series"])
@pytest.mark.hazard("a contour lies elsewhere")
def test_contours_on_the_fixed_images_are_left_out_and_told(pair, tmp_path, lists):
    def both_series(ds):
        study = ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
        study.RTReferencedSeriesSequence = [listed(pair[1]), listed(pair[0])]

    rois = [drawing(pair[0]), drawing(pair[1], 1)]
    edit = without_series if lists == "no series" else both_series
    source = write_structure_set(tmp_path / "rt.dcm", pair[1], rois, edit=edit)
    result = propagate(pair, source, tmp_path / "out")
    assert result.warnings == (
        f"In segmentation 1: ROI 11: {len(rois[0])} contours {OTHERS}.",
        "In segmentation 1: ROI 11 encloses no voxel of the moving series: left out.",
    )
    (segment,) = pydicom.dcmread(result.paths[0]).SegmentSequence
    assert segment.SegmentLabel == "Structure 12"
    alone = write_structure_set(tmp_path / "alone.dcm", pair[1], [drawing(pair[0])], edit=edit)
    result = propagate(pair, alone, tmp_path / "none")
    assert result.paths == ()
    assert result.warnings[0] == f"In segmentation 1: ROI 11: {len(rois[0])} contours {OTHERS}."
    assert result.warnings[-1].startswith("Segmentation 1 was not propagated")


def test_contours_on_another_stack_of_the_moving_series_and_on_both_images_arrive(pair, tmp_path):
    def edit(ds):
        study = ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
        study.RTReferencedSeriesSequence[0].ContourImageSequence = naming(uid("echo"), pair[0].sop_instance_uids[0])

    echo, both, fixed = drawing(pair[1]), drawing(pair[1], 1), drawing(pair[0], 1)
    for item in echo:
        item.ContourImageSequence = naming(uid("echo"))
    for item in both:
        item.ContourImageSequence = naming(pair[0].sop_instance_uids[0], pair[1].sop_instance_uids[0])
    for item in fixed:  # listed as the moving series', as they are where both stacks are of one series
        item.ContourImageSequence = naming(pair[0].sop_instance_uids[0])
    source = write_structure_set(tmp_path / "rt.dcm", pair[1], [echo, both, fixed], edit=edit)
    result = propagate(pair, source, tmp_path / "out")
    assert result.warnings[0] == f"In segmentation 1: ROI 13: {len(fixed)} contours {OTHERS}."
    labels = [item.SegmentLabel for item in pydicom.dcmread(result.paths[0]).SegmentSequence]
    assert labels == ["Structure 11", "Structure 12"]


def on_fixed(pair, numbers=(1, 2), shared=False):
    """An edit: the frames of segments name fixed images, and the object lists both series."""

    def edit(ds):
        ds.ReferencedSeriesSequence.append(listed(pair[0], "ReferencedInstanceSequence"))
        for n, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
            segment = group.get("SegmentIdentificationSequence")
            if segment is None or segment[0].ReferencedSegmentNumber in numbers:
                image = group.DerivationImageSequence[0].SourceImageSequence[0]
                image.ReferencedSOPInstanceUID = pair[0].sop_instance_uids[n % len(pair[0].frames)]
            if shared:
                ds.SharedFunctionalGroupsSequence[0].DerivationImageSequence = group.DerivationImageSequence
                del group.DerivationImageSequence

    return edit


@pytest.mark.hazard("a contour lies elsewhere")
def test_frames_on_the_fixed_images_are_left_out_and_told(pair, tmp_path):
    plain = write_segmentation(tmp_path / "plain.dcm", pair[1], MASKS)
    expected = read_on_fixed(propagate(pair, plain, tmp_path / "plain").paths[0], 2)
    ds = pydicom.dcmread(plain)
    frames = [g.SegmentIdentificationSequence[0].ReferencedSegmentNumber for g in ds.PerFrameFunctionalGroupsSequence]
    on_fixed(pair, [1])(ds)
    ds.save_as(tmp_path / "seg.dcm")
    result = propagate(pair, tmp_path / "seg.dcm", tmp_path / "out")
    assert result.warnings == (
        f"In segmentation 1: Segment 1: {frames.count(1)} frames {OTHERS}.",
        "Segment 1 of segmentation 1 has no voxel in the fixed image: left out.",
    )
    (segment,) = pydicom.dcmread(result.paths[0]).SegmentSequence
    assert segment.SegmentLabel == "Lesion B"
    assert (read_on_fixed(result.paths[0], 1) == expected).all()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.hazard("a contour lies elsewhere")
def test_a_segmentation_of_the_fixed_images_alone_is_told_and_not_written(pair, tmp_path, shared):
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], MASKS, edit=on_fixed(pair, shared=shared))
    result = propagate(pair, source, tmp_path / "out")
    reason = "all its frames are on other images than those of the moving series"
    assert (result.paths, result.warnings) == ((), (f"Segmentation 1 was not propagated: {reason}.",))


def test_planes_of_a_label_map_on_the_fixed_images_are_left_out_by_their_segments(pair, tmp_path):
    source = label_map(tmp_path / "labels.dcm", pair[1], MASKS[..., 0] + 2 * MASKS[..., 1])
    ds = pydicom.dcmread(source)
    n_th = next(n for n, plane in enumerate(ds.pixel_array) if set(np.unique(plane)) == {0, 1, 2})
    group = ds.PerFrameFunctionalGroupsSequence[n_th]
    group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID = uid("elsewhere")
    ds.save_as(source)
    result = propagate(pair, source, tmp_path / "out")
    assert result.warnings == tuple(f"In segmentation 1: Segment {n}: 1 frames {OTHERS}." for n in CENTRES)
    assert len(pydicom.dcmread(result.paths[0]).SegmentSequence) == 2


def test_frames_and_contours_that_name_no_image_arrive(pair, tmp_path):
    def nameless(ds):
        for group in ds.PerFrameFunctionalGroupsSequence:
            del group.DerivationImageSequence

    source = write_segmentation(tmp_path / "seg.dcm", pair[1], MASKS, edit=nameless)
    assert propagate(pair, source, tmp_path / "seg").warnings == ()
    rois = [contours_of(MASKS[..., 0], MOVING_AFFINE)]
    source = write_structure_set(tmp_path / "rt.dcm", pair[1], rois, edit=without_series)
    assert propagate(pair, source, tmp_path / "rt").warnings == ()
