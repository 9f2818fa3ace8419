"""The comparison's tables and figures: means, p-values, and which pairs and regions they show."""

import math
from itertools import pairwise

import numpy as np
import pytest
from bundle.benchmark.figures import best_median_worst, examples, largest_regions, write_figures
from bundle.benchmark.measure import PLANES
from bundle.benchmark.tables import markdown, summarise, wilcoxon_p
from bundle.commands.comparing import check_finished
from bundle.failures import PairsFailedError
from scipy.stats import wilcoxon


def table(**dsc):
    return [{"pair": str(i), "method": m, "dsc": v} for m, values in dsc.items() for i, v in enumerate(values)]


def test_measures_that_older_rows_lack_are_left_out_of_the_table_and_dsc30_is_over_the_pairs():
    rows = table(pan=[0.5, 0.6, 0.7, 0.8])
    base = dict.fromkeys(("hd95_mm", "assd_mm", "folding_percent", "log_jacobian_sd"), 1.0)
    old = [row | base for row in rows]
    assert summarise(old)[0]["dsc30"] == pytest.approx(np.quantile([0.5, 0.6, 0.7, 0.8], 0.3))
    assert "DSC30" in markdown(summarise(old))
    assert "NDV" not in markdown(summarise(old))
    assert "| NDV, % |" in markdown(summarise([row | {"ndv_percent": 0.25} for row in old]))
    assert "| 0.2500 ± 0.0000 |" in markdown(summarise([row | {"ndv_percent": 0.25} for row in old]))


def test_the_p_value_is_wilcoxons_over_the_pairs_that_both_finished():
    pan = [0.71, 0.68, 0.74, 0.66, 0.70, 0.69, 0.73]
    affine = [0.52, 0.69, 0.55, 0.47, 0.58, 0.50, 0.51]
    rows = table(pan=pan, affine=affine)
    assert wilcoxon_p(rows, "affine") == wilcoxon(affine, pan).pvalue
    rows[-1] = {"pair": "6", "method": "affine", "error": "failed"}
    assert wilcoxon_p(rows, "affine") == wilcoxon(affine[:-1], pan[:-1]).pvalue
    assert np.isnan(wilcoxon_p(rows, "pan"))
    assert np.isnan(wilcoxon_p(table(affine=affine), "affine"))  # nothing to compare with


def test_pairs_without_a_label_count_in_no_mean_and_are_told(tmp_path):
    rows = [row | {"regions": {}} for row in table(pan=[0.5, math.nan, 0.7])]
    (line,) = summarise(rows)
    assert (line["pairs"], line["failed"], line["unlabelled"], line["dsc_mean"]) == (2, 0, 1, pytest.approx(0.6))
    assert "Without a label to measure, and in no mean of the overlap: pan on 1 pairs" in markdown([line])
    write_figures([row | {"dsc": math.nan} for row in rows], [line], {}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_how_many_registrations_failed_is_said_in_the_end(tmp_path):
    rows = [*table(pan=[0.5, 0.6]), {"pair": "2", "method": "pan", "error": "RuntimeError: no field."}]
    check_finished(rows[:2], tmp_path)
    with pytest.raises(
        PairsFailedError, match=r"^1 of 3 registrations failed, pan of 2 first \(RuntimeError: no field\);"
    ):
        check_finished(rows, tmp_path)


def test_of_many_regions_the_largest_are_drawn():
    regions = {str(n): {"volume_mm3": float(n % 7)} for n in range(1, 30)}
    assert largest_regions([{"regions": regions}], 4) == ["6", "13", "20", "27"]


@pytest.mark.parametrize(
    ("dsc", "expected"),
    [
        ({"a": 0.6, "b": 0.8, "c": 0.7, "d": 0.5, "e": 0.9}, [("e", "best"), ("c", "median"), ("d", "worst")]),
        ({"a": 0.6, "b": 0.8}, [("b", "best"), ("a", "worst")]),
        ({"a": 0.6, "b": math.nan}, [("a", "best")]),
        ({"a": math.nan, "b": math.nan}, [("a", "pair"), ("b", "pair")]),
    ],
)
def test_the_pairs_shown_are_those_of_the_judged_methods_dsc(dsc, expected):
    others = [{"pair": pair, "method": "affine", "dsc": -value} for pair, value in dsc.items()]
    pan = [{"pair": pair, "method": "pan", "dsc": value} for pair, value in dsc.items()]
    assert list(best_median_worst([*pan, *others]).items()) == expected
    assert list(best_median_worst([*others, *({**row, "method": "voxelmorph"} for row in pan)]).items()) == expected


@pytest.mark.parametrize(
    ("name", "lines"), [("hippocampus_00{}_to_hippocampus_006", 1), (f"{'long_' * 15}{{}}_to_{'long_' * 15}", 3)]
)
def test_the_words_of_the_examples_stand_beside_their_images_and_run_over_nothing(tmp_path, name, lines):
    pictures = {f"{role}_{plane}": np.zeros((35, 50)) for role in ("fixed", "moving", "warped") for plane in PLANES}
    np.savez(tmp_path / "pictures.npz", **pictures)
    shown = dict.fromkeys(("pictures", "pictures_before"), tmp_path / "pictures.npz")
    rows = [{"pair": name.format(i), "method": "pan", "dsc": 0.9 - i / 10} | shown for i in range(3)]
    figure = examples(rows, ["pan"])
    figure.draw_without_rendering()
    captions = [block.get_suptitle().replace("\n", " ") for block in figure.subfigs]
    names = [name.format(i).replace("_to_", " to ") for i in range(3)]
    assert [caption.split(":")[0] for caption in captions] == ["best", "median", "worst"]
    assert [caption.replace(" ", "") for caption in captions] == [
        f"{place}:{said}".replace(" ", "") for place, said in zip(("best", "median", "worst"), names)
    ]
    assert [ax.get_title() for ax in figure.subfigs[1].axes[:3]] == ["fixed", "moving", "pan\nDSC 0.800"]
    for block in figure.subfigs:
        caption = block._suptitle.get_window_extent()
        assert block.get_suptitle().count("\n") + 1 == lines
        assert caption.x0 >= 0
        assert caption.x1 <= figure.bbox.x1
        titles = [ax.title.get_window_extent() for ax in block.axes[:3]]
        assert all(title.y1 <= caption.y0 for title in titles)
        assert all(left.x1 < right.x0 for left, right in pairwise(titles))
