import random

import highdicom
import itk
import numpy as np
import pydicom
import pytest
import SimpleITK
from hazards import AFFINE, SHAPE, STORED, setting, write
from panreg.failures import Code
from panreg.ingest.decode import read_stack
from panreg.ingest.stack import RefusedStack, Stack
from panreg.ingest.stacks import candidates, find_stacks
from stacked import only_stack_in, refusal_of, stacks_in
from synthetic import points_of, rotation, uid


def tags_by_slice(edits):
    """An edit that deletes or sets attributes in some slices: {k: {keyword: value or None}}."""

    def edit(ds, k):
        for keyword, value in edits.get(k, {}).items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)

    return edit


# the hazards that geometry shows
@pytest.mark.hazard("anatomy in the wrong place")
def test_non_square_pixels_of_an_oblique_series_are_placed_exactly(tmp_path):
    write(tmp_path)
    stack = only_stack_in(tmp_path)
    assert isinstance(stack, Stack)
    assert stack.warnings == ()
    assert stack.shape == SHAPE
    np.testing.assert_allclose(stack.points(), points_of(SHAPE, AFFINE), atol=1e-9)
    np.testing.assert_allclose(stack.spacing_mm, (2, 3, 4), atol=1e-9)
    assert stack.tilt_degrees < 1e-5


@pytest.mark.hazard("anatomy in the wrong place")
def test_a_missing_middle_slice_is_refused_and_counted(tmp_path):
    paths = write(tmp_path)
    for k in (5, 6, 9):
        paths[k].unlink()
    stack = only_stack_in(tmp_path)
    assert stack.refusal.code is Code.E_MISSING_SLICES
    assert stack.refusal.message.startswith("Series 3: 3 slices are missing after slice 5, 7;")


@pytest.mark.parametrize("k", [0, -1])
def test_a_missing_end_slice_is_accepted_with_a_warning(tmp_path, k):
    paths = write(tmp_path, setting(ImagesInAcquisition=12))
    paths[k].unlink()
    stack = only_stack_in(tmp_path)
    assert isinstance(stack, Stack)
    assert any("Images in Acquisition" in warning for warning in stack.warnings)
    assert any("Instance Numbers" in warning for warning in stack.warnings) == (k == 0)


def test_two_echoes_in_one_series_are_split_into_two_stacks(tmp_path):
    write(tmp_path, setting(EchoTime=3))
    write(
        tmp_path,
        lambda ds, k: setting(SeriesInstanceUID=uid("series", "series"), EchoTime=8.5, InstanceNumber=13 + k)(ds, k),
        name="echo",
        study="series",
        frame_of_reference="series",
    )
    first, second = stacks_in(tmp_path)
    assert {float(first.header.EchoTime), float(second.header.EchoTime)} == {3, 8.5}
    assert first.series_uid == second.series_uid
    assert first.shape == second.shape == SHAPE
    assert isinstance(first, Stack)
    assert isinstance(second, Stack)
    assert first.warnings == second.warnings == ("The series was split: 12 of its 24 images are in this stack.",)


@pytest.mark.hazard("anatomy in the wrong place")
def test_gantry_tilt_gives_the_exact_sheared_affine(tmp_path):
    tilted = AFFINE.copy()
    tilted[:3, 2] += AFFINE[:3, 1] / 3  # 1 mm along the columns for every 4 mm between planes
    write(tmp_path, affine=tilted, modality="CT")
    stack = only_stack_in(tmp_path)
    assert isinstance(stack, Stack)
    np.testing.assert_allclose(stack.points(), points_of(SHAPE, tilted), atol=1e-9)
    assert stack.tilt_degrees == pytest.approx(14.036, abs=1e-3)
    assert stack.spacing_mm[2] == pytest.approx(4)
    assert np.linalg.norm(stack.affine[:3, 2]) == pytest.approx(4.123, abs=1e-3)


def test_reversed_instance_numbers_and_file_order_change_nothing(tmp_path):
    write(tmp_path, lambda ds, k: setting(InstanceNumber=SHAPE[0] - k)(ds, k))
    stack = only_stack_in(tmp_path)
    np.testing.assert_allclose(stack.affine, AFFINE, atol=1e-9)
    assert [int(frame.header.InstanceNumber) for frame in stack.frames] == list(range(12, 0, -1))


def test_a_series_stored_from_top_to_bottom_is_turned_right_handed(tmp_path):
    downwards = AFFINE.copy()
    downwards[:3, 3] += 11 * AFFINE[:3, 2]
    downwards[:3, 2] *= -1
    write(tmp_path, affine=downwards)
    np.testing.assert_allclose(only_stack_in(tmp_path).affine, AFFINE, atol=1e-9)


@pytest.mark.parametrize("place", [5.3, 5.04])  # of slice 5
@pytest.mark.hazard("anatomy in the wrong place")
def test_variable_spacing_is_refused(tmp_path, place):
    shifted = [float(v) for v in AFFINE[:3, 3] + place * AFFINE[:3, 2]]
    write(tmp_path, tags_by_slice({5: {"ImagePositionPatient": [f"{v:.6f}" for v in shifted]}}))
    assert refusal_of(tmp_path) is Code.E_VARIABLE_SPACING


@pytest.mark.parametrize(("degrees", "parallel"), [(0.1, True), (0.5, False)])
@pytest.mark.hazard("anatomy in the wrong place")
def test_slices_that_turn_little_by_little_are_not_parallel(tmp_path, degrees, parallel):
    def edit(ds, k):
        turned = rotation("z", degrees * k / 11) @ AFFINE[:3, :2] / np.linalg.norm(AFFINE[:3, :2], axis=0)
        ds.ImageOrientationPatient = [f"{v:.8f}" for v in turned.T.ravel()]

    write(tmp_path, edit)
    stack = only_stack_in(tmp_path)
    assert isinstance(stack, Stack) == parallel
    assert parallel or stack.refusal.code is Code.E_MIXED_ORIENTATION


def test_a_hole_of_no_whole_number_of_slices_is_variable_spacing(tmp_path):
    stretched = AFFINE[:3, 3] + np.array([0, 1, 2, 3, 4, 5, 6.4, 7.4, 8.4, 9.4, 10.4, 11.4])[:, None] * AFFINE[:3, 2]
    edits = {k: {"ImagePositionPatient": [f"{v:.6f}" for v in p]} for k, p in enumerate(stretched)}
    write(tmp_path, tags_by_slice(edits))
    assert refusal_of(tmp_path) is Code.E_VARIABLE_SPACING


@pytest.mark.parametrize("spacing", [4.0, 1.0, 0.9])
def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even(tmp_path, spacing):
    exact = AFFINE[:3, 3] + np.arange(12)[:, None] * AFFINE[:3, 2] * spacing / 4
    rounded = np.round(exact, 1)
    assert np.linalg.norm(rounded - exact, axis=1).max() > 0.05
    edits = {k: {"ImagePositionPatient": [f"{v:.1f}" for v in p]} for k, p in enumerate(rounded)}
    write(tmp_path, tags_by_slice(edits))
    stack = only_stack_in(tmp_path)
    assert isinstance(stack, Stack)
    placed = stack.affine[:3, 3] + np.arange(12)[:, None] * stack.affine[:3, 2]
    assert np.linalg.norm(placed - exact, axis=1).max() < 0.087


def test_one_position_0086_mm_off_the_line_passes_and_03_mm_does_not(tmp_path):
    for name, offset in (("near", 0.05), ("far", 0.175)):  # along each axis: 0.087 and 0.3 mm in space
        positions = AFFINE[:3, 3] + np.arange(12)[:, None] * AFFINE[:3, 2]
        positions[5] += offset
        edits = {k: {"ImagePositionPatient": [f"{v:.6f}" for v in p]} for k, p in enumerate(positions)}
        write(tmp_path / name, tags_by_slice(edits))
        stack = only_stack_in(tmp_path / name)
        assert isinstance(stack, Stack) == (name == "near")
    assert stack.refusal.code in (Code.E_VARIABLE_SPACING, Code.E_NOT_A_LINE)


def test_slices_are_missing_from_a_series_of_rounded_positions(tmp_path):
    positions = np.round(AFFINE[:3, 3] + np.arange(12)[:, None] * AFFINE[:3, 2] / 4, 1)
    edits = {k: {"ImagePositionPatient": [f"{v:.1f}" for v in p]} for k, p in enumerate(positions)}
    paths = write(tmp_path, tags_by_slice(edits))
    paths[5].unlink()
    assert refusal_of(tmp_path) is Code.E_MISSING_SLICES


def test_a_localizer_in_the_series_is_split_off_and_has_too_few_slices(tmp_path):
    write(tmp_path)
    scout = setting(
        SeriesInstanceUID=uid("series", "series"), ImageOrientationPatient=[0, 1, 0, 0, 0, -1], InstanceNumber=13
    )
    write(tmp_path, scout, stored=STORED[:2], name="scout", study="series", frame_of_reference="series")
    few, whole = sorted(stacks_in(tmp_path), key=lambda stack: len(stack.frames))
    assert few.refusal.code is Code.E_TOO_FEW
    assert isinstance(whole, Stack)
    np.testing.assert_allclose(whole.affine, AFFINE, atol=1e-9)


def test_a_legacy_converted_multi_frame_image_equals_its_slices(tmp_path):
    slices = [pydicom.dcmread(path) for path in write(tmp_path / "slices")]
    converted = highdicom.legacy.LegacyConvertedEnhancedMRImage(slices, uid("converted"), 4, uid("instance"), 1)
    (tmp_path / "multi").mkdir()
    converted.save_as(tmp_path / "multi" / "image.dcm")
    stack = only_stack_in(tmp_path / "multi")
    assert isinstance(stack, Stack)
    assert stack.shape == SHAPE
    np.testing.assert_allclose(stack.affine, AFFINE, atol=1e-9)


def test_a_slice_without_position_refuses_the_whole_stack(tmp_path):
    write(tmp_path, tags_by_slice({11: {"ImagePositionPatient": None}}))
    stack = only_stack_in(tmp_path)
    assert stack.refusal.code is Code.E_NO_GEOMETRY
    assert "1 of 12 slices" in stack.refusal.message


@pytest.mark.parametrize("value", [None, ""])
def test_an_end_slice_without_frame_of_reference_refuses_the_whole_stack(tmp_path, value):
    write(tmp_path, tags_by_slice({11: {"FrameOfReferenceUID": value}}))
    assert refusal_of(tmp_path) is Code.E_NO_GEOMETRY


@pytest.mark.parametrize("keyword", ["ImageOrientationPatient", "PixelSpacing"])
@pytest.mark.parametrize("value", [None, "", "damaged"])
def test_an_end_slice_without_orientation_or_spacing_refuses_the_whole_stack(tmp_path, keyword, value):
    if value == "damaged":
        value = ["1", "0"] if keyword == "ImageOrientationPatient" else ["2", "-3"]
    write(tmp_path, tags_by_slice({11: {keyword: value}}))
    assert Code.E_NO_GEOMETRY in [stack.refusal.code for stack in stacks_in(tmp_path) if len(stack.frames) > 10]


def test_a_series_without_any_orientation_is_refused(tmp_path):
    write(tmp_path, tags_by_slice({k: {"ImageOrientationPatient": None} for k in range(12)}))
    assert refusal_of(tmp_path) is Code.E_NO_GEOMETRY


def test_a_series_without_frame_of_reference_is_refused(tmp_path):
    write(tmp_path, tags_by_slice({k: {"FrameOfReferenceUID": None} for k in range(12)}))
    assert refusal_of(tmp_path) is Code.E_NO_GEOMETRY


@pytest.mark.parametrize("keyword", ["PatientID", "IssuerOfPatientID"])
@pytest.mark.hazard("two patients are aligned")
def test_two_patients_in_one_series_are_refused_without_their_names(tmp_path, keyword):
    write(tmp_path, tags_by_slice({7: {keyword: "OTHER-ONE"}}))
    refusal = only_stack_in(tmp_path).refusal
    assert refusal.code is Code.E_TWO_PATIENTS
    assert "OTHER-ONE" not in refusal.message
    assert "PAT-1" not in refusal.message


# the other rows of the table of checks
def test_colour_is_refused(tmp_path):
    write(tmp_path, setting(SamplesPerPixel=3))
    assert refusal_of(tmp_path) is Code.E_COLOUR


def test_an_image_without_samples_per_pixel_is_refused_by_that_name(tmp_path):
    def edit(ds, k):
        if k == 3:
            del ds.SamplesPerPixel

    write(tmp_path, edit)
    refusal = only_stack_in(tmp_path).refusal
    assert refusal.code is Code.E_DECODE
    assert "lack a valid Samples per Pixel" in refusal.message


@pytest.mark.parametrize("k", [0, 7])
def test_one_slice_by_a_palette_refuses_the_whole_stack(tmp_path, k):
    write(tmp_path, tags_by_slice({k: {"PhotometricInterpretation": "PALETTE COLOR"}}))
    assert refusal_of(tmp_path) is Code.E_COLOUR


@pytest.mark.parametrize("k", [0, 5, 11])
@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [("StudyInstanceUID", "1.2.3", Code.E_UID_COLLISION), ("Modality", "CT", Code.E_NO_MATCH)],
)
@pytest.mark.hazard("anatomy in the wrong place")
def test_one_slice_of_another_study_or_modality_refuses_the_whole_stack(tmp_path, keyword, value, code, k):
    write(tmp_path, tags_by_slice({k: {keyword: value}}))
    assert refusal_of(tmp_path) is code


@pytest.mark.parametrize(
    ("keyword", "value", "code", "sentence"),
    [
        ("StudyInstanceUID", "1.2.3", Code.E_UID_COLLISION, "of more than one study under one Series Instance UID"),
        ("FrameOfReferenceUID", "1.2.3", Code.E_UID_COLLISION, "more than one frame of reference under one Series"),
        ("PatientID", "PAT-2", Code.E_TWO_PATIENTS, "different patient identifiers"),
        ("Modality", "CT", Code.E_NO_MATCH, "two modalities"),
        ("Modality", "OT", Code.E_NO_MATCH, "neither CT nor MR"),
    ],
)
@pytest.mark.parametrize("parted_by", ["FrameOfReferenceUID", "EchoNumbers", "Rows"])
@pytest.mark.hazard("anatomy in the wrong place")
@pytest.mark.hazard("two patients are aligned")
def test_what_a_series_has_once_is_asked_of_all_its_stacks(tmp_path, keyword, value, code, sentence, parted_by):
    """Each stack of it seems whole; in the standard, a series has one patient, study, frame and modality."""
    same = {
        "SeriesInstanceUID": uid("series", "x"),
        "FrameOfReferenceUID": uid("frame", "x"),
        "StudyInstanceUID": "1.2",
    }
    parts = {"FrameOfReferenceUID": ("1.2.4", "1.2.5"), "EchoNumbers": (1, 2), "Rows": (20, 21)}[parted_by]
    if parted_by == "FrameOfReferenceUID" and code is Code.E_NO_MATCH:
        code, sentence = Code.E_UID_COLLISION, "frame of reference"  # told first
    for name, part, changed in zip("ab", parts, (False, True)):
        own = {parted_by: part} | ({keyword: value} if changed else {})
        stored = STORED if parted_by != "Rows" or not changed else np.pad(STORED, ((0, 0), (0, 1), (0, 0)))
        write(tmp_path, setting(**(same | own)), stored=stored, name=name)
    refusals = [stack.refusal for stack in stacks_in(tmp_path)]
    assert [refusal.code for refusal in refusals] == [code, code]
    assert all(sentence in refusal.message for refusal in refusals)


def test_a_localizer_in_another_frame_of_reference_damages_no_series(tmp_path):
    write(tmp_path)
    scout = setting(SeriesInstanceUID=uid("series", "series"), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write(tmp_path, scout, stored=STORED[:3], name="scout", study="series")
    found = {len(stack.frames): type(stack) for stack in stacks_in(tmp_path)}
    assert found == {3: Stack, 12: Stack}


def test_axes_that_are_not_orthogonal_unit_vectors_are_refused(tmp_path):
    write(tmp_path, setting(ImageOrientationPatient=[1, 0, 0, 0.01, 0.99995, 0]))
    assert refusal_of(tmp_path) is Code.E_ORIENTATION


def test_phases_that_no_attribute_separates_lie_at_one_position(tmp_path):
    write(tmp_path)
    write(
        tmp_path,
        setting(SeriesInstanceUID=uid("series", "series"), AcquisitionNumber=2),
        name="phase",
        study="series",
        frame_of_reference="series",
    )
    assert refusal_of(tmp_path) is Code.E_DUPLICATE_POSITION


def test_slices_off_one_line_are_refused(tmp_path):
    bent = AFFINE[:3, 3] + np.arange(12)[:, None] * AFFINE[:3, 2]
    bent += (0.03 * (np.arange(12) - 5.5) ** 2)[:, None] * AFFINE[:3, 0] / 2
    write(tmp_path, tags_by_slice({k: {"ImagePositionPatient": [f"{v:.6f}" for v in p]} for k, p in enumerate(bent)}))
    assert refusal_of(tmp_path) is Code.E_NOT_A_LINE


@pytest.mark.parametrize("modality", ["DX", "OT"])
def test_another_modality_in_a_class_of_ct_or_mr_is_refused(tmp_path, modality):
    """Cone-beam scanners export such."""
    write(tmp_path, lambda ds, k: setattr(ds, "Modality", modality))
    assert refusal_of(tmp_path) is Code.E_NO_MATCH


def test_a_stack_of_too_many_voxels_is_refused_before_it_is_read(tmp_path):
    write(tmp_path)
    (stack,) = stacks_in(tmp_path, voxels=12 * 20 * 24 - 1)
    assert stack.refusal.code is Code.E_LIMIT
    assert isinstance(only_stack_in(tmp_path), Stack)


@pytest.mark.parametrize(
    ("attribute", "values"),
    [
        ("EchoNumbers", (1, 2)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])),
        ("DiffusionBValue", (0.0, 1000.0)),
        ("EchoTime", (3.0, 3.1)),
    ],
)
def test_a_series_is_split_by(tmp_path, attribute, values):
    same = {"SeriesInstanceUID": uid("series", "x"), "FrameOfReferenceUID": uid("frame", "x")}
    for name, value in zip("ab", values):
        write(tmp_path, setting(**(same | {attribute: value})), name=name, study="one")
    assert [(type(stack), stack.shape) for stack in stacks_in(tmp_path)] == [(Stack, SHAPE)] * 2


def test_a_b0_image_without_b_value_is_split_from_the_weighted_ones(tmp_path):
    same = {"SeriesInstanceUID": uid("series", "x"), "FrameOfReferenceUID": uid("frame", "x")}
    write(tmp_path, setting(**same), name="b0", study="one")
    write(tmp_path, setting(**same, DiffusionBValue=1000.0), name="b1000", study="one")
    assert [type(stack) for stack in stacks_in(tmp_path)] == [Stack, Stack]


def test_noise_in_orientation_and_spacing_splits_nothing(tmp_path):
    def edit(ds, k):
        ds.PixelSpacing = [f"{3 + (-1) ** k * 1e-8:.9f}", f"{1.9925 + (-1) ** k * 1e-8:.9f}"]
        ds.ImageOrientationPatient = [f"{float(v) + (-1) ** k * 1e-6:.8f}" for v in ds.ImageOrientationPatient]

    write(tmp_path, edit)
    assert isinstance(only_stack_in(tmp_path), Stack)


@pytest.mark.parametrize("word", ["LOCALIZER", "MOSAIC", "REGISTERED"])
@pytest.mark.hazard("results are taken for images to register")
def test_these_are_never_candidates(tmp_path, word):
    write(tmp_path, setting(ImageType=["DERIVED", "SECONDARY", "M", word]))
    assert candidates(stacks_in(tmp_path)) == ()


def test_a_refused_stack_stays_a_candidate(tmp_path):
    write(tmp_path)[5].unlink()
    assert len(candidates(stacks_in(tmp_path))) == 1


# order


def test_neither_names_nor_places_of_files_change_the_stacks(tmp_path):
    for name in "abc":
        write(tmp_path / "0", stored=STORED[:3], name=name)
    expected = [stack.sop_instance_uids for stack in stacks_in(tmp_path)]
    files = list((tmp_path / "0").iterdir())
    for seed in range(20):
        shuffled = random.Random(seed)
        shuffled.shuffle(files)
        for n, file in enumerate(files):
            folder = tmp_path / str(shuffled.randrange(3))
            folder.mkdir(exist_ok=True)
            files[n] = file.rename(folder / f"{seed}_{n}")
        assert [stack.sop_instance_uids for stack in stacks_in(tmp_path)] == expected


def test_unreadable_neighbours_are_told(tmp_path):
    paths = write(tmp_path)
    paths[-1].write_bytes(paths[-1].read_bytes()[:400])
    stack = only_stack_in(tmp_path)
    assert isinstance(stack, Stack)
    assert any("can't be read: 1;" in warning for warning in stack.warnings)


# a real study
def test_the_stacks_of_a_real_study_are_its_two_volumes_and_the_scouts(siemens_study):
    found = find_stacks(siemens_study)
    volumes = [stack for stack in found if isinstance(stack, Stack)]
    assert [(int(stack.header.SeriesNumber), stack.shape) for stack in volumes] == [
        (5001, (96, 128, 128)),
        (6001, (96, 128, 128)),
    ]
    assert [stack.warnings for stack in volumes] == [(), ()]
    scouts = [stack for stack in found if isinstance(stack, RefusedStack)]
    assert {stack.refusal.code for stack in scouts} == {Code.E_TOO_FEW}
    assert {int(stack.header.SeriesNumber) for stack in scouts} == {2001, 3001, 4001}
    assert sum(len(stack.frames) for stack in found) == len(siemens_study.instances)


def test_simpleitk_reads_the_same_geometry_and_values_from_a_real_study(siemens_study):
    for stack in find_stacks(siemens_study):
        if isinstance(stack, Stack):
            image = SimpleITK.ReadImage([str(frame.path) for frame in stack.frames])
            for index in ((0, 0, 0), (127, 127, 95), (31, 100, 7)):
                expected = image.TransformContinuousIndexToPhysicalPoint([float(n) for n in index])
                np.testing.assert_allclose(stack.affine[:3] @ (*index, 1), expected, atol=1e-3)
            np.testing.assert_array_equal(read_stack(stack).values, SimpleITK.GetArrayFromImage(image))


# an independent reader
def test_itk_places_the_same_points(tmp_path):
    paths = write(tmp_path)
    image = itk.imread([str(path) for path in paths], pixel_type=itk.F)
    stack = only_stack_in(tmp_path)
    for index in ((0, 0, 0), (23, 19, 11), (5, 13, 7)):
        point = stack.affine[:3, :3] @ index + stack.affine[:3, 3]
        np.testing.assert_allclose(point, image.TransformIndexToPhysicalPoint(index), atol=1e-3)
