"""What pairing reads in the functional groups of enhanced images."""

from copy import deepcopy
from dataclasses import replace

import pytest
from choosing import choose, refused
from header_stacks import stack
from panreg.failures import Code
from pydicom import Dataset


def as_enhanced(plain, **values):
    """The stack as frames of one enhanced image, what they share in functional groups, per frame or shared."""
    header, measures, echo, shared, each = deepcopy(plain.header), Dataset(), Dataset(), Dataset(), Dataset()
    for keyword in ("EchoTime", "SliceThickness"):
        del header[keyword]
    measures.SliceThickness, echo.EffectiveEchoTime = "3.6", values.get("echo_ms", 3.0)
    shared.PixelMeasuresSequence, each.MREchoSequence = [measures], [echo]
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = [deepcopy(each) for _ in plain.frames]
    frames = [replace(frame, header=header, number=n) for n, frame in enumerate(plain.frames, 1)]
    return replace(plain, frames=tuple(frames))


def test_a_rule_sees_the_functional_groups_of_an_enhanced_image():
    thin = {"SliceThickness": {"max": 5}}
    classic = stack("classic", study="two", date="20230105", SliceThickness="3.6")
    enhanced = as_enhanced(stack("enhanced"))
    assert refused(classic, enhanced, series={"fixed": thin, "moving": {"Modality": "MR"}}).code is Code.E_AMBIGUOUS


@pytest.mark.parametrize("keyword", ["EchoTime", "EffectiveEchoTime"])
def test_rules_tell_enhanced_images_apart_by_their_echo(keyword):
    short = as_enhanced(stack("short"))
    long = as_enhanced(stack("long", study="two", date="20230105"), echo_ms=90.0)
    pair = choose(short, long, series={"fixed": {keyword: {"min": 50}}, "moving": {keyword: {"max": 50}}})
    assert pair.fixed is long


def test_a_different_laterality_of_an_enhanced_image_is_a_warning():
    left, right = as_enhanced(stack("l")), stack("r", study="two", date="20230105", Laterality="R")
    anatomy = Dataset()
    anatomy.FrameLaterality = "L"
    left.header.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
    assert any("Laterality" in warning for warning in choose(left, right).warnings)
