"""Real header shapes: what our objects say of body part and side, and what is read of enhanced images."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hazards import SHAPE, enhanced
from headers import as_enhanced_mprage
from panreg.dicom.frame import Frame
from panreg.ingest.stack import Stack
from panreg.objects.acquisition import copy_acquisition
from panreg.objects.modules import UNPAIRED, describe_body_part
from panreg.registration.bundle_model import BundleModel
from panreg.registration.intended_input import contrast_of, departures
from pydicom import Dataset

INTENDED = {"modality": "MR", "contrasts": ["T1"], "body_parts": ["HEAD", "BRAIN"]}


def frame_of(**values):
    header = Dataset()
    for keyword, value in values.items():
        setattr(header, keyword, value)
    return Frame(None, header)


@pytest.mark.parametrize(
    ("values", "part", "side"),
    [
        ({}, None, ""),
        ({"Laterality": ""}, None, ""),
        ({"Laterality": "L"}, None, "L"),
        ({"BodyPartExamined": "HEAD"}, "HEAD", None),
        ({"BodyPartExamined": "HEAD", "Laterality": ""}, "HEAD", None),
        ({"BodyPartExamined": "head", "Laterality": "R"}, "HEAD", None),
        ({"BodyPartExamined": "KNEE"}, "KNEE", ""),
        ({"BodyPartExamined": "KNEE", "Laterality": ""}, "KNEE", ""),
        ({"BodyPartExamined": "KNEE", "Laterality": "R"}, "KNEE", "R"),
        ({"BodyPartExamined": "KNEE", "ImageLaterality": "L"}, "KNEE", "L"),
        ({"BodyPartExamined": "", "Laterality": "U"}, None, ""),
        ({"BodyPartExamined": "HIRN"}, "HIRN", ""),
    ],
)
def test_a_side_is_written_where_a_part_may_be_paired_and_nowhere_else(values, part, side):
    target = Dataset()
    describe_body_part(target, frame_of(**values))
    assert target.get("BodyPartExamined") == part
    assert ("Laterality" in target) == (side is not None)
    assert (target.get("Laterality") or "") == (side or "")
    assert {"HEAD", "BRAIN", "ABDOMEN"} <= UNPAIRED
    assert not {"KNEE", "BREAST", "KIDNEY", "EXTREMITY"} & UNPAIRED


def classic_stack(**values):
    """A stack of one classic MR frame of a head: a gradient echo as T1 images are, but for ``values``."""
    usual = {"Modality": "MR", "BodyPartExamined": "HEAD", "ScanningSequence": "GR", "EchoTime": 3.0}
    frame = frame_of(**{k: v for k, v in {**usual, "RepetitionTime": 8.0, **values}.items() if v is not None})
    return Stack((frame,), np.eye(4))


@pytest.mark.parametrize(
    ("values", "is_t1"),
    [
        ({}, True),
        ({"EchoTime": 30.0}, True),
        ({"EchoTime": 30.1}, False),  # T2*-weighted
        ({"EchoTime": None}, False),  # nothing to judge by
        ({"ScanningSequence": "SE", "EchoTime": 12.0, "RepetitionTime": 1000.0}, True),
        ({"ScanningSequence": "SE", "EchoTime": 12.0, "RepetitionTime": 1000.1}, False),  # proton density
        ({"ScanningSequence": "SE", "EchoTime": 12.0, "RepetitionTime": None}, False),
        ({"ScanningSequence": ["GR", "IR"], "RepetitionTime": 2300.0}, True),  # MPRAGE
        ({"ScanningSequence": ["SE", "IR"], "EchoTime": 120.0, "RepetitionTime": 9000.0}, False),  # FLAIR
        ({"ScanningSequence": "SE", "EchoTime": 90.0, "RepetitionTime": 4000.0}, False),  # T2
    ],
)
def test_t1_weighting_is_told_by_the_times_of_the_sequence_up_to_their_limits(values, is_t1):
    found = departures(classic_stack(**values), "moving", INTENDED)
    assert [("moving" in s and "does not look like T1," in s) for s in found] == ([] if is_t1 else [True])


@pytest.mark.parametrize(
    ("values", "is_flair"),
    [
        ({}, True),
        ({"EchoTime": 60.0, "RepetitionTime": 4000.0}, True),
        ({"EchoTime": 59.9}, False),
        ({"RepetitionTime": 3999.9}, False),
        ({"RepetitionTime": None}, False),
        ({"ScanningSequence": "SE"}, False),  # T2
        ({"ScanningSequence": ["IR", "SE"], "EchoTime": 389.0, "RepetitionTime": 5000.0}, True),  # in 3-D
    ],
)
def test_a_flair_image_is_told_by_its_inversion_and_long_times(values, is_flair):
    stack = classic_stack(**{"ScanningSequence": ["SE", "IR"], "EchoTime": 120.0, "RepetitionTime": 9000.0, **values})
    found = departures(stack, "fixed", {**INTENDED, "contrasts": ["T1", "FLAIR"]})
    assert [("does not look like T1 or FLAIR," in sentence) for sentence in found] == ([] if is_flair else [True])


@pytest.mark.parametrize(
    ("fixed", "moving", "flagged"),
    [("T1", "T1", 0), ("T1", "FLAIR", 0), ("FLAIR", "T1", 0), ("FLAIR", "FLAIR", 2), ("T1", "T2", 1)],
)
def test_flair_is_what_the_shipped_weights_suit_beside_t1_alone(fixed, moving, flagged):
    long = {"EchoTime": 120.0, "RepetitionTime": 9000.0}
    kinds = {"T1": {}, "FLAIR": {"ScanningSequence": ["SE", "IR"], **long}, "T2": {"ScanningSequence": "SE", **long}}
    stacks = {"fixed": classic_stack(**kinds[fixed]), "moving": classic_stack(**kinds[moving])}
    differ = contrast_of(stacks["fixed"]) != contrast_of(stacks["moving"])
    intended = BundleModel(Path(__file__).parents[3]).intended_input(across_contrasts=differ)
    assert sum(len(departures(stack, role, intended)) for role, stack in stacks.items()) == flagged


def test_weights_for_any_contrast_flag_no_contrast_but_other_modalities_and_parts_still():
    any_contrast = {"modality": "MR", "body_parts": ["HEAD", "BRAIN"]}
    assert departures(classic_stack(EchoTime=120.0, ScanningSequence="SE"), "fixed", any_contrast) == ()
    (found,) = departures(classic_stack(Modality="CT"), "fixed", any_contrast)
    assert "no MR" in found
    (found,) = departures(classic_stack(BodyPartExamined="KNEE"), "fixed", any_contrast)
    assert "another body part" in found


def enhanced_stack(folder, edit):
    path = enhanced(folder, edit=edit)
    header = pydicom.dcmread(path, stop_before_pixels=True)
    return Stack(tuple(Frame(path, header, n) for n in range(SHAPE[0], 0, -1)), np.eye(4))


def test_an_enhanced_mprage_is_known_as_t1_weighted_image_of_a_head(tmp_path):
    assert departures(enhanced_stack(tmp_path, as_enhanced_mprage), "fixed", INTENDED) == ()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda shared, group: setattr(group.MREchoSequence[0], "EffectiveEchoTime", 90.0), "does not look like T1"),
        (
            lambda shared, group: setattr(
                shared.FrameAnatomySequence[0].AnatomicRegionSequence[0], "CodeValue", "818981001"
            ),
            "another body part",
        ),
        (lambda shared, group: shared.pop("FrameAnatomySequence", None), "does not say which body part"),
    ],
)
def test_an_enhanced_image_of_another_kind_is_flagged(tmp_path, change, sentence):
    def edit(ds):
        as_enhanced_mprage(ds)
        for group in ds.PerFrameFunctionalGroupsSequence:
            change(ds.SharedFunctionalGroupsSequence[0], group)

    (found,) = departures(enhanced_stack(tmp_path, edit), "fixed", INTENDED)
    assert sentence in found


@pytest.mark.parametrize(("administered", "is_flagged"), [(None, True), ("YES", True), ("NO", False)])
def test_a_contrast_agent_of_an_enhanced_image_counts_if_it_was_given(tmp_path, administered, is_flagged):
    def edit(ds):
        as_enhanced_mprage(ds)
        agent = Dataset()
        agent.ContrastBolusAgentNumber = 1
        ds.ContrastBolusAgentSequence = [agent]
        if administered:
            usage = Dataset()
            usage.ContrastBolusAgentNumber, usage.ContrastBolusAgentAdministered = 1, administered
            ds.SharedFunctionalGroupsSequence[0].ContrastBolusUsageSequence = [usage]

    found = departures(enhanced_stack(tmp_path, edit), "moving", INTENDED)
    assert any("contrast agent" in sentence for sentence in found) == is_flagged


def test_a_registered_image_has_the_sequence_of_the_enhanced_one_in_classic_words(tmp_path):
    target = Dataset()
    copy_acquisition(target, enhanced_stack(tmp_path, as_enhanced_mprage))
    assert list(target.ScanningSequence) == ["GR", "IR"]
    assert (float(target.EchoTime), float(target.RepetitionTime), float(target.InversionTime)) == (2.98, 2300, 900)
    assert (float(target.FlipAngle), int(target.EchoTrainLength)) == (8, 1)
    assert target.BodyPartExamined == "HEAD"
    assert "Laterality" not in target
