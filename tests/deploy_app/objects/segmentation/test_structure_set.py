"""RT Structure Sets and label maps of the moving series: they arrive as the same masks would."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from panreg.ingest.scan import Scan
from panreg.limits import Limits
from panreg.objects.required_attributes import missing
from panreg.objects.segmentation.masks import place_masks
from panreg.objects.segmentation.structure_set import read_structure_set
from panreg.operators.hand_overs import Registered
from panreg.operators.writers_operator import write_objects
from panreg.settings import Settings
from propagated import MASKS, agreement, label_map, propagate, read_on_fixed, truth
from segments import CENTRES, masks_on, write_segmentation
from structures import contour, contours_of, placed, write_structure_set
from synthetic import (
    FIXED_AFFINE,
    FIXED_SHAPE,
    MOVING_AFFINE,
    MOVING_SHAPE,
    affine_of,
    provenance_of,
    registration_of,
    rotation,
    stack_of,
    uid,
    write_phantom_pair,
    write_series,
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    fixed, moving = write_phantom_pair(tmp_path_factory.mktemp("pair"))
    return stack_of(fixed, FIXED_AFFINE), stack_of(moving, MOVING_AFFINE)


@pytest.fixture(scope="module")
def by_masks(pair, tmp_path_factory):
    """The same drawing as a segmentation of masks, propagated: a mask each on the fixed grid."""
    folder = tmp_path_factory.mktemp("masks")
    (path,) = propagate(pair, write_segmentation(folder / "seg.dcm", pair[1], MASKS), folder / "out").paths
    return {n: read_on_fixed(path, n) for n in CENTRES}


def dice(path, by_masks):
    return [agreement(read_on_fixed(path, n), by_masks[n])[0] for n in CENTRES]


@pytest.mark.hazard("a contour lies elsewhere")
def test_a_label_map_arrives_as_its_masks_would(pair, by_masks, tmp_path):
    labels = MASKS[..., 0] + 2 * MASKS[..., 1]
    source = label_map(tmp_path / "labels.dcm", pair[1], labels)
    assert pydicom.dcmread(source).SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
    result = propagate(pair, source, tmp_path / "out")
    assert result.warnings == ()
    assert dice(result.paths[0], by_masks) == [1, 1]
    ds = pydicom.dcmread(result.paths[0])
    assert missing(ds) == []
    assert (ds.SOPClassUID, ds.SegmentationType) == ("1.2.840.10008.5.1.4.1.1.66.4", "BINARY")
    assert [item.SegmentLabel for item in ds.SegmentSequence] == ["Lesion 1", "Lesion 2"]


def test_a_label_map_of_many_labels_in_16_bits_keeps_each(pair, tmp_path):
    rng = np.random.default_rng(1)
    blocks = rng.permutation(np.arange(1, 301))[: 7 * 11 * 3].reshape(7, 11, 3)
    labels = np.kron(blocks, np.ones((4, 4, 15), int))[:, :, : MOVING_SHAPE[2]].astype(np.uint16)
    numbers = sorted(set(labels.ravel().tolist()))
    source = label_map(tmp_path / "labels.dcm", pair[1], labels, numbers)
    found = place_masks(pydicom.dcmread(source), pair[1], frozenset(pair[1].sop_instance_uids), 10**8)
    for number in numbers:
        block = found.stored[number]
        volume = np.zeros(MOVING_SHAPE, bool)
        volume[tuple(slice(a, a + n) for a, n in zip(block.first, block.values.shape))] = block.values
        assert (volume == (labels == number)).all()
    result = propagate(pair, source, tmp_path / "out")
    assert len(pydicom.dcmread(result.paths[0]).SegmentSequence) > 100


def test_labels_that_nobody_describes_are_told(pair, tmp_path):
    def forget(ds):
        del ds.SegmentSequence[1]

    source = label_map(tmp_path / "labels.dcm", pair[1], MASKS[..., 0] + 2 * MASKS[..., 1], edit=forget)
    result = propagate(pair, source, tmp_path / "out")
    assert result.paths == ()
    assert "labels that it does not describe" in result.warnings[0]


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
@pytest.mark.hazard("a contour lies elsewhere")
def test_a_structure_set_arrives_as_its_masks_would(pair, by_masks, tmp_path, kind):
    rois = [contours_of(MASKS[..., n], MOVING_AFFINE, kind) for n in range(2)]
    source = write_structure_set(tmp_path / "rt.dcm", pair[1], rois, {11: "Läsion", 12: "Rest"})
    result = propagate(pair, source, tmp_path / "out")
    assert result.warnings == ()
    assert min(dice(result.paths[0], by_masks)) >= 0.99
    for number, expected in {1: truth(1), 2: truth(2) & ~truth(1)}.items():
        assert agreement(read_on_fixed(result.paths[0], number), expected)[0] > 0.85
    ds = pydicom.dcmread(result.paths[0])
    assert missing(ds) == []
    assert [item.SegmentLabel for item in ds.SegmentSequence] == ["Läsion", "Rest"]
    assert ds.SourceInstanceSequence[0].ReferencedSOPInstanceUID == uid("structures")
    assert ds.SeriesDescription == "PROPAGATED: Plan"


def test_overlapping_structures_both_arrive(pair, tmp_path):
    masks = masks_on(MOVING_SHAPE, MOVING_AFFINE)
    masks[..., 1] |= masks[..., 0]
    source = write_structure_set(
        tmp_path / "rt.dcm", pair[1], [contours_of(masks[..., n], MOVING_AFFINE) for n in (0, 1)]
    )
    path = propagate(pair, source, tmp_path / "out").paths[0]
    first, second = (read_on_fixed(path, n) for n in (1, 2))
    assert first.any()
    assert (first <= second).all()


def test_a_hole_stays_a_hole(pair, tmp_path):
    mask = masks_on(MOVING_SHAPE, MOVING_AFFINE)[..., 0]
    hollow = mask.copy()
    hollow[:, 18:24, 20:25] = 0
    assert 20 < (mask != hollow).sum()
    source = write_structure_set(tmp_path / "rt.dcm", pair[1], [contours_of(hollow, MOVING_AFFINE)])
    block = read_structure_set(pydicom.dcmread(source), pair[1], frozenset(), 10**8).masks.stored[1]
    found = np.zeros(MOVING_SHAPE, np.uint8)
    found[tuple(slice(a, a + n) for a, n in zip(block.first, block.values.shape))] = block.values
    assert (found == hollow).all()


def test_contours_on_a_sheared_oblique_stack_are_filled_exactly(tmp_path):
    affine = affine_of(rotation("x", 25) @ rotation("z", -17), (1.3, 2.1, 3.3), (-40, -35, -30))
    affine[:3, 2] += affine[:3, 1] * 0.4
    stack = stack_of(write_series(tmp_path / "s", np.zeros((9, 30, 40)), affine, name="moving"), affine)
    mask = np.random.default_rng(2).random((9, 30, 40)) > 0.7
    source = write_structure_set(tmp_path / "rt.dcm", stack, [contours_of(mask, affine, "CLOSEDPLANAR_XOR")])
    block = read_structure_set(pydicom.dcmread(source), stack, frozenset(), 10**8).masks.stored[1]
    found = np.zeros(mask.shape, np.uint8)
    found[tuple(slice(a, a + n) for a, n in zip(block.first, block.values.shape))] = block.values
    assert (found == mask).all()


SQUARE = np.array([[10.0, 10], [20, 10], [20, 20], [10, 20]])


def on(k, kind="CLOSED_PLANAR"):
    return contour(placed(SQUARE, k, MOVING_AFFINE), kind)


@pytest.mark.parametrize(
    ("lost", "sentence"),
    [
        (on(5, "POINT"), "1 contours of points or open lines are left out"),
        (on(5, "OPEN_PLANAR"), "1 contours of points or open lines are left out"),
        (on(5.5), "1 contours on no slice of the moving series are left out"),
        (on(-3), "1 contours on no slice of the moving series are left out"),
        (on(8), "1 slices between its contours have none and stay empty"),
    ],
)
@pytest.mark.hazard("a contour is left behind unnoticed")
def test_contours_that_can_not_be_filled_are_told_and_the_others_arrive(pair, tmp_path, lost, sentence):
    source = write_structure_set(tmp_path / "rt.dcm", pair[1], [[on(10), on(11), on(12), lost]])
    result = propagate(pair, source, tmp_path / "out")
    assert result.warnings == (f"In segmentation 1: ROI 11: {sentence}.",)
    assert len(result.paths) == 1


NOTHING = "it has no closed planar contour on the slices of the moving series"


def elsewhere(ds):
    for roi in ds.StructureSetROISequence:
        roi.ReferencedFrameOfReferenceUID = uid("elsewhere")


def of_another(ds):
    ds.PatientID = "CANARY-ID"


def unrelated(ds):
    frame = ds.ReferencedFrameOfReferenceSequence[0]
    frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID = uid("unrelated")


def open_only(ds):
    for item in ds.ROIContourSequence[0].ContourSequence:
        item.ContourGeometricType = "OPEN_NONPLANAR"


def damaged(ds):
    ds.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("edit", "reason", "warnings"),
    [
        (elsewhere, "its frame of reference is not that of the moving series", []),
        (of_another, "its PatientID is not that of the moving series", []),
        (unrelated, "it does not refer to the moving series", []),
        (open_only, NOTHING, ["2 contours of points or open lines are left out.", "encloses no voxel"]),
        (damaged, NOTHING, [" is left out: a contour's points are damaged"]),
    ],
)
@pytest.mark.hazard("a contour is left behind unnoticed")
def test_a_structure_set_that_can_not_be_propagated_is_told_and_not_written(pair, tmp_path, edit, reason, warnings):
    source = write_structure_set(tmp_path / "rt.dcm", pair[1], [[on(10), on(11)]], edit=edit)
    result = propagate(pair, source, tmp_path / "out")
    assert result.paths == ()
    assert result.warnings[-1] == f"Segmentation 1 was not propagated: {reason}."
    assert len(result.warnings) == len(warnings) + 1
    for warning, words in zip(result.warnings, warnings):
        assert warning.startswith("In segmentation 1: ROI 11")
        assert words in warning
    assert "CANARY" not in "".join(result.warnings)


def of_number(number, ds, n=0):
    for sequence, keyword in (("StructureSetROI", "ROINumber"), ("ROIContour", "ReferencedROINumber")):
        setattr(ds[f"{sequence}Sequence"].value[n], keyword, number)


def doubled(ds):
    of_number(12, ds)


def drawn_twice(ds):
    ds.ROIContourSequence[0].ReferencedROINumber = 13


def nameless(ds):
    for n in range(2):
        of_number(None, ds, n)


def points(value):
    def edit(ds):
        for item in ds.ROIContourSequence[0].ContourSequence[1:2]:
            item.ContourData = value

    return edit


def without_points(ds):
    del ds.ROIContourSequence[0].ContourSequence[1].ContourData


SHARED = "stands there more than once; whose contours are whose is unknown: left out"
NAMELESS = "ROIs without a number, by which their contours are found, are left out"
DAMAGED = "is left out: a contour's points are damaged"


@pytest.mark.parametrize(
    ("edit", "left", "sentence"),
    [
        (doubled, ["Structure 13"], f"ROI 12 {SHARED}"),
        (drawn_twice, ["Structure 12"], f"ROI 13 {SHARED}"),
        (nameless, ["Structure 13"], NAMELESS),
        (points(None), ["Structure 12", "Structure 13"], f"ROI 11 {DAMAGED}"),
        (points(["1", "2"]), ["Structure 12", "Structure 13"], f"ROI 11 {DAMAGED}"),
        (points("5"), ["Structure 12", "Structure 13"], f"ROI 11 {DAMAGED}"),
        (without_points, ["Structure 12", "Structure 13"], f"ROI 11 {DAMAGED}"),
    ],
)
@pytest.mark.hazard("a contour is left behind unnoticed")
def test_a_structure_that_is_damaged_or_shares_its_number_is_left_out_alone(pair, tmp_path, edit, left, sentence):
    masks = [MASKS[..., 0], MASKS[..., 1], MASKS[..., 0] | MASKS[..., 1]]
    rois = [contours_of(mask, MOVING_AFFINE) for mask in masks]
    whole = propagate(pair, write_structure_set(tmp_path / "whole.dcm", pair[1], rois), tmp_path / "whole").paths[0]
    result = propagate(pair, write_structure_set(tmp_path / "rt.dcm", pair[1], rois, edit=edit), tmp_path / "out")
    assert f"In segmentation 1: {sentence}." in result.warnings
    labels = [item.SegmentLabel for item in pydicom.dcmread(result.paths[0]).SegmentSequence]
    assert labels == left
    for n, label in enumerate(labels, 1):
        assert (read_on_fixed(result.paths[0], n) == read_on_fixed(whole, int(label[-1]))).all()


def anatomy(*codes):
    items = []
    for value, scheme, meaning in codes:
        item, observation = pydicom.Dataset(), pydicom.Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
        observation.ReferencedROINumber, observation.RTROIIdentificationCodeSequence = 11, [item]
        items.append(observation)

    def edit(ds):
        ds.RTROIObservationsSequence = items

    return edit


LIVER = ("10200004", "SCT", "Liver")


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ([LIVER], "Liver"),
        ([LIVER, LIVER], "Liver"),
        ([LIVER, ("78961009", "SCT", "Spleen")], "Tissue"),
        ([("10200004", "SCT", "L" * 80)], "L" * 64),
        ([("1" * 17, "SCT", "Liver")], "Tissue"),
        ([("10200004", "S" * 17, "Liver")], "Tissue"),
    ],
)
@pytest.mark.filterwarnings("ignore:The value length")
def test_a_structure_has_the_anatomy_that_its_observations_agree_on(pair, tmp_path, codes, told):
    rois = [contours_of(MASKS[..., 0], MOVING_AFFINE)]
    source = write_structure_set(tmp_path / "rt.dcm", pair[1], rois, edit=anatomy(*codes))
    (segment,) = pydicom.dcmread(propagate(pair, source, tmp_path / "out").paths[0]).SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == told


CUT, GARBLED = "its name is cut at 64 characters", "part of its name can't be read in the character set"


@pytest.mark.parametrize(
    ("name", "label", "sentence"),
    [
        (b"N" * 80, "N" * 64, CUT),
        (b"Liver\\left", "Liver left", None),
        (b"Liver\x1b(Zleft\n", "Liver (Zleft", None),
        ("L\u00e4sion".encode("latin-1"), "L\ufffdsion", GARBLED),
        (b"\x1b\x07", "ROI 11", None),
    ],
)
@pytest.mark.hazard("a contour is left behind unnoticed")
def test_names_that_no_label_can_hold_are_mended_and_lose_no_structure(pair, tmp_path, name, label, sentence):
    def in_utf_8(ds):
        ds.SpecificCharacterSet = "ISO_IR 192"

    place = b"@" * (len(name) + len(name) % 2)
    rois = [contours_of(MASKS[..., n], MOVING_AFFINE) for n in range(2)]
    names = {11: place.decode(), 12: "Rest"}
    source = write_structure_set(tmp_path / "rt.dcm", pair[1], rois, names, in_utf_8)
    source.write_bytes(source.read_bytes().replace(place, name.ljust(len(place))))
    result = propagate(pair, source, tmp_path / "out")
    assert len(result.warnings) == (sentence is not None)
    assert all(f"In segmentation 1: ROI 11: {sentence}" in warning for warning in result.warnings)
    segments = pydicom.dcmread(result.paths[0]).SegmentSequence
    assert [item.SegmentLabel for item in segments] == [label, "Rest"]


def test_a_plan_s_label_with_an_unknown_escape_sequence_ends_no_run(pair, tmp_path):
    rois = [contours_of(MASKS[..., 0], MOVING_AFFINE)]
    source = write_structure_set(tmp_path / "rt.dcm", pair[1], rois)
    content = source.read_bytes()
    assert content.count(b"LO\x04\x00Plan") + content.count(b"SH\x04\x00Plan") == 1
    source.write_bytes(content.replace(b"\x04\x00Plan", b"\x04\x00P\x1b(Z"))
    (path,) = propagate(pair, source, tmp_path / "out").paths
    assert pydicom.dcmread(path).SeriesDescription == "PROPAGATED: P (Z"


def test_more_voxels_than_the_limit_are_refused(pair, tmp_path):
    source = write_structure_set(tmp_path / "rt.dcm", pair[1], [contours_of(MASKS[..., 0], MOVING_AFFINE)])
    result = propagate(pair, source, tmp_path / "out", settings=Settings(limits=Limits(voxels=10)))
    assert "limits" in result.warnings[0]


def test_two_runs_write_equal_bytes(pair, tmp_path):
    source = write_structure_set(tmp_path / "rt.dcm", pair[1], [contours_of(MASKS[..., 0], MOVING_AFFINE)])
    one, two = (propagate(pair, source, tmp_path / name).paths[0].read_bytes() for name in ("one", "two"))
    assert one == two
    assert FIXED_SHAPE == read_on_fixed(tmp_path / "one/segmentation_0001.dcm", 1).shape


@pytest.mark.hazard("a contour is left behind unnoticed")
def test_what_is_left_behind_stands_in_manifest_and_report(pair, tmp_path):
    source = write_structure_set(tmp_path / "rt.dcm", pair[1], [[on(10), on(11), on(12, "POINT")]])
    (tmp_path / "out").mkdir()
    notes = []
    found = Scan(
        tmp_path,
        Limits(),
        segmentations=(SimpleNamespace(path=source),),
        skipped=Counter({"Surface Segmentation Storage": 2, "not_dicom": 5}),
    )
    taken = Registered(found, registration_of(*pair, np.zeros(MOVING_SHAPE)), provenance_of(*pair))
    job = SimpleNamespace(
        settings=Settings(),
        publication=SimpleNamespace(staging=tmp_path / "out"),
        manifest=SimpleNamespace(record=lambda **sections: None, warn=notes.extend),
    )
    written = write_objects(taken, job)
    expected = [
        "In segmentation 1: ROI 11: 1 contours of points or open lines are left out.",
        "Surface Segmentation objects in the input were not propagated: 2.",
    ]
    assert [note for note in notes if not note.startswith("Quality")] == expected
    assert [note for note in notes if note.startswith("Quality")] == [f"Quality: {limit}" for limit in written.broken]
    report = pydicom.dcmread(tmp_path / "out" / "report.dcm")
    texts = {element.value for element in report.iterall() if element.keyword == "TextValue"}
    assert {f"Warning: {sentence}" for sentence in expected} <= texts
