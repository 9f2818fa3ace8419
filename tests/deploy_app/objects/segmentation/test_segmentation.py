from copy import deepcopy

import numpy as np
import pydicom
import pytest
from panreg.limits import Limits
from panreg.objects.required_attributes import missing
from panreg.settings import Settings
from propagated import agreement, as_instances_of_one_frame, as_multi_frame, propagate, read_on_fixed, truth
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from segments import CENTRES, masks_on, write_segmentation
from synthetic import (
    FIXED_AFFINE,
    MOVING_AFFINE,
    MOVING_SHAPE,
    KnownTransform,
    affine_of,
    displacement,
    provenance_of,
    registration_of,
    rotation,
    stack_of,
    uid,
    write_phantom_pair,
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    fixed, moving = write_phantom_pair(tmp_path_factory.mktemp("pair"))
    return stack_of(fixed, FIXED_AFFINE), stack_of(moving, MOVING_AFFINE)


def is_right(path):
    scores = [agreement(read_on_fixed(path, n), truth(n)) for n in CENTRES]
    return all(dice > 0.9 and apart < 0.5 for dice, apart in scores)


@pytest.mark.hazard("a contour lies elsewhere")
def test_a_propagated_mask_is_the_known_one_on_the_fixed_grid(pair, tmp_path):
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], masks_on(MOVING_SHAPE, MOVING_AFFINE))
    result = propagate(pair, source, tmp_path / "out")
    assert result.warnings == ()
    assert [path.name for path in result.paths] == ["segmentation_0001.dcm"]
    assert is_right(result.paths[0])


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda p: np.zeros_like(p), id="identity"),
        pytest.param(lambda p: -displacement(p), id="sign"),
        pytest.param(lambda p: displacement(p) * [-1, -1, 1], id="RAS"),
        pytest.param(lambda p: displacement(p)[..., ::-1], id="permuted"),
    ],
)
@pytest.mark.hazard("a contour lies elsewhere")
def test_a_wrong_field_gives_another_mask(pair, tmp_path, wrong):
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], masks_on(MOVING_SHAPE, MOVING_AFFINE))
    result = propagate(pair, source, tmp_path / "out", KnownTransform(*pair, field=wrong))
    assert not is_right(result.paths[0])


def test_a_mask_on_a_grid_of_its_own_lands_in_the_same_place(pair, tmp_path):
    affine = affine_of(rotation("z", 11) @ rotation("x", -8), (1.9, 2.2, 2.5), (-45, -50, -30))
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], masks_on((26, 42, 44), affine), affine)
    assert is_right(propagate(pair, source, tmp_path / "out").paths[0])


def test_sparse_frames_in_any_order_are_placed_by_their_positions(pair, tmp_path):
    def shuffle(ds):
        order = np.random.default_rng(3).permutation(int(ds.NumberOfFrames))
        frames, groups = ds.pixel_array, ds.PerFrameFunctionalGroupsSequence
        assert len(order) < 2 * MOVING_SHAPE[0]
        ds.PerFrameFunctionalGroupsSequence = Sequence([groups[n] for n in order])
        ds.PixelData = np.packbits(frames[order].ravel(), bitorder="little").tobytes()

    masks = masks_on(MOVING_SHAPE, MOVING_AFFINE)
    plain = propagate(pair, write_segmentation(tmp_path / "a.dcm", pair[1], masks), tmp_path / "out_a")
    mixed = propagate(pair, write_segmentation(tmp_path / "b.dcm", pair[1], masks, edit=shuffle), tmp_path / "out_b")
    assert plain.paths[0].read_bytes() == mixed.paths[0].read_bytes()


def test_two_frames_of_one_segment_on_one_slice_are_one_mask(pair, tmp_path):
    """Drawn in two parts, side by side, and where they meet in both."""

    def halve(ds):
        frames, groups = ds.pixel_array, ds.PerFrameFunctionalGroupsSequence
        parts, middle = np.stack([frames, frames]), frames.shape[-1] // 2
        parts[0, ..., middle + 3 :] = 0
        parts[1, ..., : middle - 3] = 0
        assert all(part.any((1, 2)).sum() > 8 for part in parts)
        ds.PerFrameFunctionalGroupsSequence = Sequence([*groups, *deepcopy(groups)])
        ds.NumberOfFrames = 2 * len(frames)
        ds.PixelData = np.packbits(parts.ravel(), bitorder="little").tobytes()

    masks = masks_on(MOVING_SHAPE, MOVING_AFFINE)
    whole = propagate(pair, write_segmentation(tmp_path / "a.dcm", pair[1], masks), tmp_path / "out_a").paths[0]
    parted = propagate(pair, write_segmentation(tmp_path / "b.dcm", pair[1], masks, edit=halve), tmp_path / "out_b")
    for number in CENTRES:
        assert (read_on_fixed(parted.paths[0], number) == read_on_fixed(whole, number)).all()


def test_every_other_slice_of_the_moving_series_does_not_double_the_thickness(pair, tmp_path):
    def forget_spacing(ds):
        del ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices

    masks = masks_on(MOVING_SHAPE, MOVING_AFFINE)
    masks[::2] = 0
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], masks, edit=forget_spacing)
    expected = registration_of(*pair, np.zeros(MOVING_SHAPE)).pull(masks[..., 0].astype(np.float32)) >= 0.5
    assert (read_on_fixed(propagate(pair, source, tmp_path / "out").paths[0], 1) == expected).all()


def test_a_mask_on_the_moving_grid_is_pulled_as_the_images_are(pair, tmp_path):
    masks = masks_on(MOVING_SHAPE, MOVING_AFFINE)
    result = propagate(pair, write_segmentation(tmp_path / "seg.dcm", pair[1], masks), tmp_path / "out")
    for number in CENTRES:
        expected = registration_of(*pair, np.zeros(MOVING_SHAPE)).pull(masks[..., number - 1].astype(np.float32)) >= 0.5
        assert (read_on_fixed(result.paths[0], number) == expected).all()


def test_fractions_stay_fractions(pair, tmp_path):
    fractions = masks_on(MOVING_SHAPE, MOVING_AFFINE) * np.float32(0.4)
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], fractions, kind="FRACTIONAL")
    ds = pydicom.dcmread(propagate(pair, source, tmp_path / "out").paths[0])
    assert (ds.SegmentationType, ds.SegmentationFractionalType, ds.MaximumFractionalValue) == (
        *("FRACTIONAL", "PROBABILITY"),
        255,
    )
    assert ds.pixel_array.max() == 102
    assert len(np.unique(ds.pixel_array)) > 20


def test_fractions_above_the_declared_maximum_are_refused(pair, tmp_path):
    def lower(ds):
        ds.MaximumFractionalValue = 0

    fractions = masks_on(MOVING_SHAPE, MOVING_AFFINE) * np.float32(0.4)
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], fractions, kind="FRACTIONAL", edit=lower)
    result = propagate(pair, source, tmp_path / "out")
    assert result.paths == ()
    assert "exceed the maximum" in result.warnings[0]


def test_codes_labels_and_tracking_are_kept_and_the_algorithm_is_ours(pair, tmp_path):
    masks = masks_on(MOVING_SHAPE, MOVING_AFFINE)
    result = propagate(pair, write_segmentation(tmp_path / "seg.dcm", pair[1], masks), tmp_path / "out")
    ds = pydicom.dcmread(result.paths[0])
    fixed, provenance = pair[0], provenance_of(*pair)
    assert missing(ds) == []
    assert ds.FrameOfReferenceUID == fixed.frame_of_reference_uid
    assert ds.StudyInstanceUID == fixed.study_uid
    assert ds.SeriesDescription == "PROPAGATED: Lesions"
    assert "review required" in ds.ContentDescription
    assert ds.ImageComments == Settings().label
    assert [item.SegmentNumber for item in ds.SegmentSequence] == [1, 2]
    for number, label, item in zip((1, 2), ("Lesion A", "Lesion B"), ds.SegmentSequence, strict=True):
        kept = label, f"lesion {number}", uid("lesion", number)
        assert (item.SegmentLabel, item.TrackingID, item.TrackingUID) == kept
        assert item.SegmentedPropertyTypeCodeSequence[0].CodeValue == codes.SCT.Neoplasm.value
        assert item.SegmentedPropertyCategoryCodeSequence[0].CodingSchemeDesignator == "SCT"
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
        assert algorithm.AlgorithmVersion == provenance.version
    assert uid("segmentation") in {item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence}


def test_each_frame_lies_on_the_plane_of_the_fixed_image_that_it_refers_to(pair, tmp_path):
    masks = masks_on(MOVING_SHAPE, MOVING_AFFINE)
    result = propagate(pair, write_segmentation(tmp_path / "seg.dcm", pair[1], masks), tmp_path / "out")
    positions = {frame.sop_instance_uid: frame.header.ImagePositionPatient for frame in pair[0].frames}
    for group in pydicom.dcmread(result.paths[0]).PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert group.PlanePositionSequence[0].ImagePositionPatient == positions[source]


def test_a_multi_frame_fixed_image_gets_its_mask_frame_by_frame(pair, tmp_path):
    fixed = as_multi_frame(pair[0])
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], masks_on(MOVING_SHAPE, MOVING_AFFINE))
    path = propagate((fixed, pair[1]), source, tmp_path / "out").paths[0]
    assert is_right(path)
    for group in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence:
        number = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        own = fixed.header.PerFrameFunctionalGroupsSequence[number - 1].PlanePositionSequence[0]
        assert group.PlanePositionSequence[0].ImagePositionPatient == own.ImagePositionPatient


def test_fixed_images_of_one_frame_each_get_their_mask_instance_by_instance(pair, tmp_path):
    fixed = as_instances_of_one_frame(pair[0])
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], masks_on(MOVING_SHAPE, MOVING_AFFINE))
    result = propagate((fixed, pair[1]), source, tmp_path / "out")
    assert result.warnings == ()
    path = result.paths[0]
    assert is_right(path)
    positions = {frame.sop_instance_uid: frame.header.ImagePositionPatient for frame in pair[0].frames}
    for group in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence:
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert group.PlanePositionSequence[0].ImagePositionPatient == positions[image.ReferencedSOPInstanceUID]
        assert "ReferencedFrameNumber" not in image
    elements = pydicom.dcmread(path).iterall()
    told = {element.value for element in elements if element.keyword == "ReferencedSOPClassUID"}
    assert told == {fixed.header.SOPClassUID, "1.2.840.10008.5.1.4.1.1.66.4"}


BROKEN = "TrackingUID: the value breaks the DICOM standard"


def elsewhere(ds):
    ds.FrameOfReferenceUID = uid("elsewhere")


def of_another(ds):
    ds.PatientID = "CANARY-ID"


def unrelated(ds):
    ds.ReferencedSeriesSequence[0].SeriesInstanceUID = uid("unrelated")


def without_positions(ds):
    for group in ds.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence


def irregular(ds):
    shift = iter([0.0, 0.9] * int(ds.NumberOfFrames))
    for group in ds.PerFrameFunctionalGroupsSequence:
        position = group.PlanePositionSequence[0]
        position.ImagePositionPatient = [v + (next(shift) if n == 2 else 0) for n, v in enumerate(position[0x200032])]


def without_uid(ds):
    ds.SegmentSequence[0].TrackingUID = "none"


def truncated(ds):
    ds.PixelData = ds.PixelData[:100]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (elsewhere, "its frame of reference is not that of the moving series"),
        (of_another, "its PatientID is not that of the moving series"),
        (unrelated, "it does not refer to the moving series"),
        (without_positions, "it can't be read as a segmentation"),
        (irregular, "its frames do not lie at regular distances"),
        (without_uid, BROKEN),
        (truncated, "it can't be read as a segmentation"),
    ],
)
def test_what_can_not_be_propagated_is_told_and_not_written(pair, tmp_path, edit, reason):
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], masks_on(MOVING_SHAPE, MOVING_AFFINE), edit=edit)
    result = propagate(pair, source, tmp_path / "out")
    assert (result.paths, len(result.warnings)) == ((), 1)
    assert result.warnings[0].startswith(f"Segmentation 1 was not propagated: {reason}")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.filterwarnings("ignore:The value length")
def test_texts_of_segments_that_the_standard_forbids_are_mended(pair, tmp_path):
    def edit(ds):
        ds.SegmentSequence[0].SegmentLabel = "L" * 65
        ds.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning = "M" * 65
        ds.SegmentSequence[1].SegmentLabel = ["left", "right"]

    source = write_segmentation(tmp_path / "seg.dcm", pair[1], masks_on(MOVING_SHAPE, MOVING_AFFINE), edit=edit)
    result = propagate(pair, source, tmp_path / "out")
    assert result.warnings == ("In segmentation 1: Segment 1: its name is cut at 64 characters.",)
    segments = pydicom.dcmread(result.paths[0]).SegmentSequence
    assert [item.SegmentLabel for item in segments] == ["L" * 64, "left right"]
    assert segments[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "M" * 64


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.hazard("a contour is left behind unnoticed")
def test_segments_of_one_number_are_left_out_and_told(pair, tmp_path, kind):
    def edit(ds):
        ds.SegmentSequence.append(deepcopy(ds.SegmentSequence[-2]))  # a label map begins with a background
        ds.SegmentSequence[-1].SegmentLabel = "Another"

    masks = masks_on(MOVING_SHAPE, MOVING_AFFINE)
    masks[..., 1] &= ~masks[..., 0]
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], masks, kind=kind, edit=edit)
    result = propagate(pair, source, tmp_path / "out")
    sentence = "Segment 1 stands there more than once; whose masks are whose is unknown: left out."
    assert result.warnings == (f"In segmentation 1: {sentence}",)
    (segment,) = pydicom.dcmread(result.paths[0]).SegmentSequence
    assert segment.SegmentLabel == "Lesion B"
    masks[..., 0] = 0
    alone = write_segmentation(tmp_path / "alone.dcm", pair[1], masks)
    expected = read_on_fixed(propagate(pair, alone, tmp_path / "alone").paths[0], 1)
    assert (read_on_fixed(result.paths[0], 1) == expected).all()


def test_a_file_that_is_no_segmentation_is_told(pair, tmp_path):
    (tmp_path / "no.dcm").write_bytes(b"\0" * 200)
    for source in (tmp_path / "no.dcm", pair[0].frames[0].path):
        result = propagate(pair, source, tmp_path / "out")
        assert (result.paths, len(result.warnings)) == ((), 1)


def test_more_voxels_than_the_limit_are_refused(pair, tmp_path):
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], masks_on(MOVING_SHAPE, MOVING_AFFINE))
    result = propagate(pair, source, tmp_path / "out", settings=Settings(limits=Limits(voxels=1000)))
    assert result.paths == ()
    assert "limits" in result.warnings[0]


def test_a_segment_outside_the_fixed_image_is_left_out_and_told(pair, tmp_path):
    masks = masks_on(MOVING_SHAPE, MOVING_AFFINE)
    masks[..., 0] = 0
    masks[0, :2, :2, 0] = 1
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], masks)
    result = propagate(pair, source, tmp_path / "out")
    assert result.warnings == ("Segment 1 of segmentation 1 has no voxel in the fixed image: left out.",)
    segments = pydicom.dcmread(result.paths[0]).SegmentSequence
    assert [(item.SegmentNumber, item.SegmentLabel) for item in segments] == [(1, "Lesion B")]
    masks[..., 1] = masks[..., 0]
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], masks)
    result = propagate(pair, source, tmp_path / "none")
    assert (result.paths, len(result.warnings)) == ((), 2)


def test_two_runs_write_equal_bytes(pair, tmp_path):
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], masks_on(MOVING_SHAPE, MOVING_AFFINE))
    one, two = (propagate(pair, source, tmp_path / name).paths[0].read_bytes() for name in ("one", "two"))
    assert one == two


def test_labels_keep_their_letters_in_another_character_set(pair, tmp_path):
    def cyrillic(ds):
        ds.SpecificCharacterSet = "ISO_IR 192"

    labels = ("Läsion", "Очаг")
    masks = masks_on(MOVING_SHAPE, MOVING_AFFINE)
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], masks, labels=labels, edit=cyrillic)
    ds = pydicom.dcmread(propagate(pair, source, tmp_path / "out").paths[0])
    assert tuple(item.SegmentLabel for item in ds.SegmentSequence) == labels
    assert ds.SpecificCharacterSet == "ISO_IR 192"


def test_nothing_of_the_patient_beyond_the_shared_modules_and_no_log(pair, tmp_path, caplog):
    fixed = stack_of([frame.path for frame in pair[0].frames], FIXED_AFFINE)
    for frame in fixed.frames:
        frame.header.PatientName, frame.header.PatientComments = "NOCARET", "CANARY-COMMENT"
    source = write_segmentation(tmp_path / "seg.dcm", pair[1], masks_on(MOVING_SHAPE, MOVING_AFFINE))
    ds = pydicom.dcmread(propagate((fixed, pair[1]), source, tmp_path / "out").paths[0])
    assert ds.PatientName == "NOCARET"
    assert "CANARY-COMMENT" not in str(ds)
    assert "NOCARET" not in caplog.text


def test_a_fixed_image_without_optional_text_and_with_jitter_in_its_orientation_is_served(tmp_path):
    def sparse(ds, k):
        for keyword in ("AccessionNumber", "StudyID", "PatientBirthDate", "StudyDescription"):
            delattr(ds, keyword)
        ds.ImageOrientationPatient = [f"{float(v) + k * 1e-9:.12f}" for v in ds.ImageOrientationPatient]

    fixed, moving = write_phantom_pair(tmp_path, edit=sparse)
    for path in moving:
        ds = pydicom.dcmread(path)
        ds.AccessionNumber = ds.StudyID = ds.PatientBirthDate = ""
        ds.ImageOrientationPatient = pydicom.dcmread(moving[0]).ImageOrientationPatient
        ds.save_as(path)
    stacks = stack_of(fixed, FIXED_AFFINE), stack_of(moving, MOVING_AFFINE)
    source = write_segmentation(tmp_path / "seg.dcm", stacks[1], masks_on(MOVING_SHAPE, MOVING_AFFINE))
    assert is_right(propagate(stacks, source, tmp_path / "out").paths[0])
