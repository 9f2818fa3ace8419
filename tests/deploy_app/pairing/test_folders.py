"""Which image is fixed, by the folders that they lie in."""

from dataclasses import replace

import numpy as np
import pytest
from choosing import CURRENT, choose, refused
from header_stacks import ROOT, stack
from panreg.failures import Code
from panreg.ingest.scan import scan
from panreg.ingest.stacks import find_stacks
from panreg.limits import Limits
from synthetic import FIXED_AFFINE, uid, write_series


def test_the_folders_fixed_and_moving_decide_against_the_dates():
    current, prior = stack("current", folder="moving/a/b"), stack("prior", study="two", date="20230105", folder="fixed")
    pair = choose(current, prior)
    assert (pair.fixed, pair.moving, pair.rule) == (prior, current, "folders")


def test_configured_folders_decide_and_may_be_absolute_or_climb():
    left, right, other = stack("left", folder="a/x"), stack("right", folder="b"), stack("other", folder="c")
    pair = choose(left, right, other, fixed_path="b", moving_path="a")
    assert (pair.fixed, pair.moving) == (right, left)
    pair = choose(left, right, other, fixed_path=str((ROOT / "a").absolute()), moving_path="c/../b")
    assert (pair.fixed, pair.moving) == (left, right)


@pytest.mark.parametrize(
    ("folders", "code"),
    [
        (["fixed", "fixed", "moving"], Code.E_AMBIGUOUS),
        (["fixed", "other"], Code.E_NO_MATCH),
        (["moving", "fixed_too"], Code.E_NO_MATCH),
        (["deep/fixed", "deep/moving"], Code.E_AMBIGUOUS),  # folders of the input's top only
    ],
)
def test_each_folder_holds_exactly_one_candidate(folders, code):
    stacks = [stack(f"s{n}", folder=folder) for n, folder in enumerate(folders)]
    assert refused(*stacks).code is code


def test_one_image_by_its_folder_and_the_other_by_its_series_uid():
    left, right, other = stack("left", folder="a"), stack("right", folder="b"), stack("other", folder="b")
    pair = choose(left, right, other, fixed_path="a", moving_series_uid=other.series_uid)
    assert (pair.fixed, pair.moving, pair.rule) == (left, other, "series_uid")
    pair = choose(left, right, other, moving_path="a", fixed_series_uid=right.series_uid)
    assert (pair.fixed, pair.moving) == (right, left)
    assert refused(left, right, other, fixed_path="b", moving_series_uid=left.series_uid).code is Code.E_AMBIGUOUS
    assert refused(left, right, fixed_path="c", moving_series_uid=left.series_uid).code is Code.E_NO_MATCH
    assert refused(left, right, fixed_path="a", moving_series_uid=left.series_uid).code is Code.E_SAME


def test_beside_a_series_uid_the_usual_folder_tells_which_of_several_is_the_other():
    one, two, three = stack("one", folder="fixed"), stack("two", folder="moving"), stack("three", folder="else")
    pair = choose(one, two, three, fixed_series_uid=three.series_uid)
    assert (pair.fixed, pair.moving) == (three, two)
    pair = choose(one, two, fixed_series_uid=two.series_uid)  # the only one that is left, wherever it lies
    assert (pair.fixed, pair.moving) == (two, one)


def test_one_named_folder_leaves_the_other_image_to_the_only_other_candidate_or_the_usual_folder():
    left, right, usual = stack("left", folder="a"), stack("right", folder="b"), stack("usual", folder="moving")
    pair = choose(left, right, fixed_path="a")
    assert (pair.fixed, pair.moving, pair.rule) == (left, right, "folders")
    assert choose(left, right, moving_path="a").fixed is right
    assert choose(left, right, usual, fixed_path="a").moving is usual
    failure = refused(left, right, stack("third", folder="b"), fixed_path="a")
    assert failure.code is Code.E_AMBIGUOUS
    assert "2 image stacks may be moving" in failure.message


def test_a_folder_for_both_images_is_the_same_image_twice():
    stacks = [stack("a", folder="x"), stack("b", folder="y")]
    assert refused(*stacks, fixed_path="x", moving_path="x").code is Code.E_SAME


def test_a_stack_that_lies_partly_in_a_folder_does_not_lie_in_it():
    torn = stack("torn", folder="fixed")
    torn = replace(torn, frames=(*torn.frames[:-1], replace(torn.frames[-1], path=ROOT / "elsewhere" / "x.dcm")))
    failure = refused(torn, stack("m", folder="moving"))
    assert failure.code is Code.E_NO_MATCH
    assert "Only 3 of 4 images of one stack (series 3, MR, 4 slices) lie in the folder for the fixed" in failure.message
    assert refused(torn, CURRENT).code is Code.E_NO_MATCH  # and no day decides


@pytest.mark.parametrize(("fixed", "moving"), [("Fixed", "Moving"), ("FIXED", "moving")])
def test_the_folders_fixed_and_moving_are_found_whatever_their_case(fixed, moving):
    one, other = stack("one", folder=fixed), stack("other", folder=f"{moving}/deep")
    pair = choose(other, one)
    assert (pair.fixed, pair.moving, pair.rule) == (one, other, "folders")


def test_one_image_in_both_folders_is_the_same_image_twice(tmp_path):
    for folder in ("fixed", "moving"):
        write_series(tmp_path / folder, np.zeros((4, 8, 9)), FIXED_AFFINE, name="one")
    (found,) = find_stacks(scan(tmp_path, Limits()))
    failure = refused(found, root=tmp_path)
    assert failure.code is Code.E_SAME
    assert refused(found, root=tmp_path / "elsewhere").code is Code.E_NO_INPUT


@pytest.mark.parametrize("shared", [(), ("frame",), ("frame", "study"), ("study",)])
@pytest.mark.parametrize("third", [False, True])
@pytest.mark.hazard("the wrong image moves")
def test_two_folders_of_one_series_uid_are_refused_as_such(tmp_path, shared, third):
    """Nobody could tell by their references which of the two the results are of."""
    for folder in ("fixed", "moving"):

        def edit(ds, k):
            ds.SeriesInstanceUID = uid("series", "both")

        names = {
            "study": "one" if "study" in shared else folder,
            "frame_of_reference": "one" if "frame" in shared else folder,
        }
        write_series(tmp_path / folder, np.zeros((4, 8, 9)), FIXED_AFFINE, name=folder, edit=edit, **names)
    if third:
        write_series(tmp_path / "else", np.zeros((4, 8, 9)), FIXED_AFFINE, name="third")
    failure = refused(*find_stacks(scan(tmp_path, Limits())), root=tmp_path)
    assert failure.code is Code.E_UID_COLLISION
    assert "one Series Instance UID" in failure.message
