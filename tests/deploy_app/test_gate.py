"""The quality gate on whole runs: synthetic heads and nonsense as DICOM (gate_pairs has the pairs of real heads)."""

from functools import partial

import pytest
from application import manifest_of, run
from gate_pairs import SEEDS, Pair, knee, moved, nonsense_pairs, plausible_pairs, synthetic_head, write_pair
from panreg.registration.quality import MEASURES

SMALL = (80, 96, 80)


def head(seed):
    return partial(synthetic_head, seed, SMALL)


PAIRS = [
    (Pair("two_people", True, head(7), head(8)), ()),
    (Pair("knee_onto_head", False, partial(knee, 7), head(8)), ("foreground_similarity",)),
    (Pair("scaled", False, lambda: moved(head(8)(), scale=(1, 1, 1.3), size=(96, 112, 110)), head(8)), ("stretch",)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "expected"), PAIRS, ids=[pair.name for pair, _ in PAIRS])
@pytest.mark.hazard("a poor registration is trusted")
def test_a_plausible_pair_passes_and_nonsense_is_flagged_by_what_is_wrong_with_it(pair, expected, tmp_path):
    write_pair(pair, tmp_path / "in")
    done = run(tmp_path / "in", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = manifest_of(tmp_path / "out")
    assert set(MEASURES.values()) <= set(manifest["quality"])
    flags = [warning for warning in manifest["warnings"] if warning.startswith("Quality: ")]
    assert bool(flags) != pair.plausible, flags
    for name in expected:
        assert any(name in flag for flag in flags), flags


@pytest.mark.parametrize("half", SEEDS)
def test_each_half_has_twenty_pairs_of_a_kind(half):
    assert len(list(plausible_pairs(half))) == len(list(nonsense_pairs(half))) == 20
    assert len({pair.name for pair in (*plausible_pairs(half), *nonsense_pairs(half))}) == 40
