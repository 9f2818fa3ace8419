"""The comparison: its numbers are the metrics', what is done is kept, and what fails is one row."""

import json
import math
import multiprocessing
import sys
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.__main__ import main
from bundle.benchmark import accuracy, worker
from bundle.benchmark.accuracy import compare
from bundle.benchmark.curve import CURVES
from bundle.benchmark.figures import best_median_worst, largest_regions, write_figures
from bundle.benchmark.measure import MARGIN, Common, measure, transform_of, visible
from bundle.benchmark.methods import Linear, Network
from bundle.benchmark.tables import markdown, summarise, wilcoxon_p
from bundle.commands.benchmark import accuracy as run
from bundle.commands.benchmark import benchmark as commands
from bundle.commands.comparing import check_finished
from bundle.data import draw_pairs, open_dataset
from bundle.failures import PairsFailedError
from bundle.fields import compose
from bundle.io.tables import read_csv
from bundle.metrics import (
    dice_per_label,
    folding_percent,
    learn2reg_log_jacobian_sd,
    log_jacobian_sd,
    mean_dice,
    non_diffeomorphic_volume_percent,
    surface_distances,
)
from bundle.spatial import LABEL_MODES
from bundle.transforms import grid_of
from matplotlib.image import imread
from scipy.stats import wilcoxon
from tests import forked

COMMON = Common(affine="center", spacing_mm=5.0)
METHODS = "identity,affine,pan"


@pytest.fixture(scope="module")
def pairs(small_dataset):
    return draw_pairs(open_dataset(str(small_dataset), "test"), 2)


@pytest.fixture(scope="module")
def options(small_dataset, shifting_weights):
    return dict(dataset=str(small_dataset), methods=METHODS, affine="center", weights=shifting_weights, threads=1)


@pytest.fixture(scope="module")
def benchmark(options, tmp_path_factory):
    """One whole run of two pairs, its folder and summary."""
    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "get_context", lambda _: forked.context())
        return folder, run(**options, output_dir=str(folder), pairs=2, spacing_mm=5.0)


@pytest.fixture
def in_this_process(monkeypatch):
    """Run the methods here, where tests see and replace what they do; returns the (pair, method's name) measured."""
    measured = []

    class Here:
        def __init__(self, method, common):
            self.method, self.common, self.register = method, common, method.load()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def __call__(self, pair, alignment):
            measured.append(pair["name"])
            return measure(pair, alignment, self.common, self.method, self.register)

    monkeypatch.setattr(accuracy, "worker", Here)
    return measured


def rows_of(path):
    lines = path.read_text().splitlines()
    return [dict(zip(lines[0].split(","), line.split(","))) for line in lines[1:]]


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


def test_every_table_and_figure_is_there(benchmark):
    folder, summary = benchmark
    pictures = ("boxplot.png", "dsc_against_time.png", "examples.png")
    files = {"pairs.csv", "regions.csv", "summary.csv", "summary.md", *pictures}
    assert {path.name for path in folder.iterdir()} == {*files, "cache"}
    assert all(imread(folder / name).std() > 0 for name in pictures)
    assert [line["method"] for line in summary] == METHODS.split(",")
    table = (folder / "summary.md").read_text()
    assert "seed 0; pre-alignment center; whole images; labels by nearest; 1 threads" in table
    assert table.count("\n| ") == 5


def test_with_the_images_swapped_the_symmetric_method_finds_the_inverse(pairs, shifting_weights):
    item = COMMON.read(pairs[1])
    image, grid = item["image"].as_tensor()[None], grid_of(item["image"])
    method = Network(shifting_weights, symmetric=True)
    assert method.settings() == Network(shifting_weights).settings() | {"symmetric": True}
    register = method.load()
    there, back = register(image, grid)[None], register(image.flip(1), grid)[None]
    assert float(there.norm(dim=1).mean()) > 0.1
    assert float(compose(back, there).norm(dim=1).mean()) < 0.02


def test_the_numbers_are_the_metrics_on_the_fixed_images_own_grid(benchmark, pairs, shifting_weights):
    folder, summary = benchmark
    item = COMMON.read(pairs[1])
    ddf = Network(shifting_weights).load()(item["image"].as_tensor()[None], grid_of(item["image"]))
    transform = transform_of(item, ddf)
    warped = transform.resample(item["moving_label"].as_tensor(), mode="nearest")
    fixed = item["fixed_label"].as_tensor()
    distances = surface_distances(warped, fixed, transform.fixed_grid.spacing_mm.tolist())
    expected = {
        "dsc": mean_dice(warped, fixed),
        "hd95_mm": np.nanmean([d.hd95_mm for d in distances.values()]),
        "assd_mm": np.nanmean([d.assd_mm for d in distances.values()]),
        "folding_percent": folding_percent(ddf[None]),
        "ndv_percent": non_diffeomorphic_volume_percent(ddf[None]),
        "learn2reg_log_jacobian_sd": learn2reg_log_jacobian_sd(ddf[None]),
        "log_jacobian_sd": log_jacobian_sd(ddf[None]),
    }
    rows = [row for row in rows_of(folder / "pairs.csv") if row["method"] == "pan"]
    row = next(row for row in rows if row["pair"] == pairs[1]["name"])
    assert {k: float(row[k]) for k in expected} == pytest.approx(expected, abs=2e-6)
    assert summary[2]["dsc_mean"] == pytest.approx(np.mean([float(r["dsc"]) for r in rows]), abs=1e-6)
    regions = [r for r in rows_of(folder / "regions.csv") if (r["pair"], r["method"]) == (row["pair"], "pan")]
    assert {int(r["label"]): float(r["dsc"]) for r in regions} == pytest.approx(dice_per_label(warped, fixed), abs=1e-6)
    assert all(r["region"] != r["label"] for r in regions)  # the data set names them


def test_labels_are_scored_by_the_interpolation_asked_for(pairs, tmp_path, in_this_process):
    item = COMMON.read(pairs[0])
    fixed, moving = (item[f"{role}_label"].as_tensor() for role in ("fixed", "moving"))
    found = {}
    for mode in LABEL_MODES:
        row = compare(pairs[:1], {"affine": Linear()}, replace(COMMON, label_interpolation=mode), tmp_path)[0]
        assert row["dsc"] == pytest.approx(mean_dice(transform_of(item, None).resample(moving, mode=mode), fixed))
        found[mode] = row["dsc"]
    assert found["label_gaussian"] != pytest.approx(found["nearest"], abs=1e-4)


def write_landmarks(path, points_mm, labels=()):
    """As 3-D Slicer keeps them."""
    points = [{"position": list(map(float, point))} for point in points_mm]
    for point, label in zip(points, labels):
        point["label"] = label
    markups = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": points}
    path.write_text(json.dumps({"markups": [markups]}))


def test_landmarks_are_measured_where_the_images_have_them(small_dataset, pairs, tmp_path, in_this_process):
    fixed = np.array([[10.0, -20.0, 5.0], [0.0, 12.0, -8.0], [-15.0, 3.0, 20.0]])
    alignment = COMMON.read(pairs[0])["alignment"].numpy()
    there = fixed @ alignment[:3, :3].T + alignment[:3, 3]
    off = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    listing = json.loads((small_dataset / "dataset.json").read_text())
    items = [{k: str(small_dataset / v) for k, v in item.items()} for item in listing["test"]]
    for item, points in zip(items, (there + off, fixed)):
        item["landmarks"] = f"{item['image'].split('/')[-1].split('.')[0]}.mrk.json"
        write_landmarks(tmp_path / item["landmarks"], points)
    (tmp_path / "dataset.json").write_text(json.dumps({"test": items}))
    first = next(p for p in draw_pairs(open_dataset(str(tmp_path), "test")) if p["name"] == pairs[0]["name"])
    methods = {"identity": Linear(aligned=False), "affine": Linear()}
    by_headers, aligned = compare([first], methods, COMMON, tmp_path / "cache")
    assert aligned["tre_mm"] == pytest.approx((5 + 0 + 1) / 3, abs=1e-6)
    assert by_headers["tre_mm"] == pytest.approx(np.linalg.norm(fixed - there - off, axis=1).mean(), abs=1e-6)
    summary = summarise([by_headers, aligned])
    assert "TRE, mm" in markdown(summary)
    write_landmarks(tmp_path / first["moving_landmarks"], there)
    assert compare([first], methods, COMMON, tmp_path / "cache")[1]["tre_mm"] == pytest.approx(0, abs=1e-6)
    write_landmarks(tmp_path / first["moving_landmarks"], there[::-1], "cba")
    write_landmarks(tmp_path / first["fixed_landmarks"], fixed[:2], "ab")
    assert compare([first], methods, COMMON, tmp_path / "cache")[1]["tre_mm"] == pytest.approx(0, abs=1e-6)
    (tmp_path / items[0]["landmarks"]).unlink()
    with pytest.raises(FileNotFoundError, match=r"lists .*mrk.json, which does not exist"):
        open_dataset(str(tmp_path), "test")


def test_measures_that_older_rows_lack_are_left_out_of_the_table_and_dsc30_is_over_the_pairs():
    rows = table(pan=[0.5, 0.6, 0.7, 0.8])
    base = dict.fromkeys(("hd95_mm", "assd_mm", "folding_percent", "log_jacobian_sd"), 1.0)
    old = [row | base for row in rows]
    assert summarise(old)[0]["dsc30"] == pytest.approx(np.quantile([0.5, 0.6, 0.7, 0.8], 0.3))
    assert "DSC30" in markdown(summarise(old))
    assert "NDV" not in markdown(summarise(old))
    assert "| NDV, % |" in markdown(summarise([row | {"ndv_percent": 0.25} for row in old]))
    assert "| 0.2500 ± 0.0000 |" in markdown(summarise([row | {"ndv_percent": 0.25} for row in old]))


def test_seconds_add_up_and_memory_is_a_process_of_its_own(benchmark):
    for row in rows_of(benchmark[0] / "pairs.csv"):
        register, resample, both = (float(row[f"seconds_{k}"]) for k in ("register", "resample", "deformable"))
        assert both == pytest.approx(register + resample, abs=1e-5)
        assert (float(row["seconds_align"]) > 0) == (row["method"] != "identity")
        assert 100 < float(row["peak_memory_mb"]) < 4000


def test_a_second_run_looks_everything_up(benchmark, options, monkeypatch):
    folder, _ = benchmark
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.suffix in (".csv", ".md", ".json")}
    monkeypatch.setattr(worker, "get_context", lambda _: pytest.fail("a method ran again"))
    monkeypatch.setattr(Common, "read", lambda *_: pytest.fail("a pair was read again"))
    run(**options, output_dir=str(folder), pairs=2, spacing_mm=5.0)
    assert {path: path.read_bytes() for path in before} == before


def test_an_interrupted_run_goes_on_where_it_stopped(pairs, shifting_weights, tmp_path, in_this_process, monkeypatch):
    methods = {"identity": Linear(aligned=False), "affine": Linear(), "pan": Network(shifting_weights)}

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Network, "load", interrupt)
        with pytest.raises(KeyboardInterrupt):
            compare(pairs, methods, COMMON, tmp_path)
    assert len(in_this_process) == 4
    rows = compare(pairs, methods, COMMON, tmp_path)
    assert in_this_process == [pair["name"] for pair in pairs] * 3
    assert [(row["pair"], row["method"]) for row in rows] == [(p["name"], m) for m in methods for p in pairs]


def test_other_settings_weights_and_images_are_other_results(
    pairs, shifting_weights, fresh_weights, tmp_path, in_this_process
):
    others = ({"affine": "none"}, {"masked": True}, {"label_interpolation": "label_gaussian"})
    for common in (COMMON, *(replace(COMMON, **other) for other in others)):
        compare(pairs[:1], {"affine": Linear()}, common, tmp_path)
    assert len(in_this_process) == 4
    for weights in (shifting_weights, str(fresh_weights), shifting_weights):
        compare(pairs[:1], {"pan": Network(weights)}, COMMON, tmp_path)
    assert len(in_this_process) == 6
    turned = pairs[0] | {"fixed": pairs[0]["moving"], "fixed_label": pairs[0]["moving_label"]}
    compare([turned], {"affine": Linear()}, COMMON, tmp_path)
    assert len(in_this_process) == 7


def test_voxels_that_lie_apart_from_their_header_count(pairs, tmp_path, in_this_process):
    pair = pairs[0] | {"moving": str(tmp_path / "moving.mhd")}
    image = sitk.ReadImage(pairs[0]["moving"])
    voxels, headers = sitk.GetArrayFromImage(image), []
    for content in (voxels, voxels[::-1]):
        changed = sitk.GetImageFromArray(content)
        changed.CopyInformation(image)
        sitk.WriteImage(changed, pair["moving"])
        headers.append((tmp_path / "moving.mhd").read_text())
        compare([pair], {"affine": Linear()}, replace(COMMON, affine="none"), tmp_path / "cache")
    assert headers[0] == headers[1]
    assert len(in_this_process) == 2


def test_a_moved_folder_is_still_whole(pairs, tmp_path, in_this_process):
    compare(pairs, {"affine": Linear()}, COMMON, tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    rows = compare(pairs, {"affine": Linear()}, COMMON, tmp_path / "there")
    assert len(in_this_process) == 2
    assert all(str(tmp_path / "there") in row[k] for row in rows for k in ("pictures", "pictures_before"))


def test_all_methods_start_from_one_alignment_on_disk(pairs, tmp_path, in_this_process):
    row = accuracy.align_pair(pairs[0], COMMON, accuracy._inputs(pairs[0], COMMON, digests(pairs)), tmp_path)
    found = COMMON.read(pairs[0])
    again = COMMON.read(pairs[0], row["alignment"])
    assert torch.allclose(again["alignment"], found["alignment"], atol=1e-9)
    assert torch.allclose(again["image"].as_tensor(), found["image"].as_tensor(), atol=1e-5)


def digests(pairs):
    return {pair[key]: "" for pair in pairs for key in ("moving", "fixed", "moving_label", "fixed_label")}


def test_masked_images_are_blank_outside_their_labels(pairs):
    item = Common(affine="none", masked=True, spacing_mm=5.0).read(pairs[0])
    outside = item["fixed_label"].as_tensor() == 0
    assert visible(item, "fixed")[outside].abs().max() == 0
    assert (item["image"].as_tensor() == 0).float().mean() > 0.5


def test_masked_images_are_cut_to_what_is_left_of_them(pairs):
    whole = Common(affine="none", spacing_mm=5.0).read(pairs[0])
    cut = Common(affine="none", masked=True, spacing_mm=5.0).read(pairs[0])
    for role in ("moving", "fixed"):
        before, after = (item[f"{role}_label"].as_tensor() for item in (whole, cut))
        assert after.numel() < before.numel()
        assert torch.equal(torch.bincount(after.flatten().long())[1:], torch.bincount(before.flatten().long())[1:])
        for axis in (1, 2, 3):
            present = after.amax([a for a in (1, 2, 3) if a != axis])[0].nonzero()
            margins = int(present.min()), after.shape[axis] - 1 - int(present.max())
            assert max(margins) <= MARGIN


class Failing(Linear):
    """A method that cannot do one of the pairs."""

    def load(self):
        def register(image, grid):
            raise RuntimeError("no field was found")

        return register


class Crashing(Linear):
    """A method that takes its process with it."""

    def load(self):
        import os

        os._exit(9)


@pytest.mark.slow
def test_a_method_that_fails_is_a_row_and_left_out_of_the_means(pairs, tmp_path, monkeypatch):
    contexts = iter([multiprocessing.get_context("spawn"), forked.context(), forked.context()])
    monkeypatch.setattr(worker, "get_context", lambda _: next(contexts))  # the first process as users have it
    methods = {"affine": Linear(), "demons": Failing(), "bombs": Crashing()}
    rows = compare(pairs[:1], methods, Common("center", spacing_mm=5.0), tmp_path)
    assert [row.get("error", "") for row in rows] == [
        "",
        "RuntimeError: no field was found",
        "the process ended with exit code 9: out of memory, perhaps",
    ]
    summary = summarise(rows)
    assert [(line["pairs"], line["failed"]) for line in summary] == [(1, 0), (0, 1), (0, 1)]
    assert np.isnan(summary[1]["dsc_mean"])
    assert "left out of the means: demons on 1, bombs on 1 pairs" in markdown(summary)
    assert not list(tmp_path.glob("*.demons.*"))  # tried again by the next run


def test_a_pair_that_cannot_be_aligned_fails_for_all_methods(pairs, tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("no overlap")

    monkeypatch.setattr(Common, "read", refuse)
    rows = compare(pairs[:1], {"identity": Linear(False), "affine": Linear()}, COMMON, tmp_path)
    assert [row["error"] for row in rows] == ["ValueError: no overlap"] * 2


@pytest.mark.parametrize("command", ["accuracy", "curve"])
def test_a_comparison_of_which_every_pair_fails_ends_in_a_sentence_and_leaves_nothing_of_an_earlier_one(
    command, options, small_dataset, tmp_path
):
    stale = "regions.csv", "boxplot.png", "dsc_against_time.png", "examples.png"
    for name in stale:
        (tmp_path / name).touch()
    (tmp_path / "damaged.nii.gz").write_bytes(b"no image")
    item = json.loads((small_dataset / "dataset.json").read_text())["test"][0]
    whole = {key: str(small_dataset / path) for key, path in item.items()}
    listed = [whole, whole | {"image": str(tmp_path / "damaged.nii.gz")}]
    (tmp_path / "dataset.json").write_text(json.dumps({"test": listed}))
    chosen = {key: options[key] for key in ("affine", "weights", "threads")} | {"methods": "pan"}
    kinds = 1 if command == "accuracy" else len(CURVES["pan"][0])
    sentence = rf"{2 * kinds} of {2 * kinds} registrations failed, pan.* first \(.*damaged\.nii\.gz"
    with pytest.raises(PairsFailedError, match=sentence) as failure:
        commands[command](str(tmp_path), str(tmp_path), split="test", pairs=None, **chosen)
    assert str(failure.value).endswith("); none is left to compare. The next call tries them again.")
    if command == "accuracy":
        assert len(read_csv(tmp_path / "pairs.csv")) == 2
        assert not any((tmp_path / name).exists() for name in stale)


def test_how_many_registrations_failed_is_said_in_the_end(tmp_path):
    rows = [*table(pan=[0.5, 0.6]), {"pair": "2", "method": "pan", "error": "RuntimeError: no field."}]
    check_finished(rows[:2], tmp_path)
    with pytest.raises(
        PairsFailedError, match=r"^1 of 3 registrations failed, pan of 2 first \(RuntimeError: no field\);"
    ):
        check_finished(rows, tmp_path)


def test_pairs_without_a_label_count_in_no_mean_and_are_told(tmp_path):
    rows = [row | {"regions": {}} for row in table(pan=[0.5, math.nan, 0.7])]
    (line,) = summarise(rows)
    assert (line["pairs"], line["failed"], line["unlabelled"], line["dsc_mean"]) == (2, 0, 1, pytest.approx(0.6))
    assert "Without a label to measure, and in no mean of the overlap: pan on 1 pairs" in markdown([line])
    write_figures([row | {"dsc": math.nan} for row in rows], [line], {}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_masking_by_a_label_map_without_labels_is_refused_in_a_sentence(pairs, tmp_path):
    label = nibabel.load(pairs[0]["fixed_label"])
    nibabel.save(nibabel.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), tmp_path / "empty.nii.gz")
    pair = pairs[0] | {"fixed_label": str(tmp_path / "empty.nii.gz")}
    with pytest.raises(ValueError, match=r"The fixed label \(.*empty\.nii\.gz\) holds no label, zeros alone"):
        replace(COMMON, masked=True).read(pair)


@pytest.mark.parametrize("command", ["curve", "verdicts", "expected_error"])
def test_voxels_of_no_size_are_refused_by_every_benchmark(command, small_dataset, tmp_path):
    foreign = {"foreign": str(small_dataset)} if command == "verdicts" else {}
    with pytest.raises(ValueError, match="--spacing_mm must be above 0 mm, not 0"):
        commands[command](str(small_dataset), output_dir=str(tmp_path / "out"), spacing_mm=0, **foreign)
    assert not (tmp_path / "out").exists()


def table(**dsc):
    return [{"pair": str(i), "method": m, "dsc": v} for m, values in dsc.items() for i, v in enumerate(values)]


def test_the_p_value_is_wilcoxons_over_the_pairs_that_both_finished():
    pan = [0.71, 0.68, 0.74, 0.66, 0.70, 0.69, 0.73]
    affine = [0.52, 0.69, 0.55, 0.47, 0.58, 0.50, 0.51]
    rows = table(pan=pan, affine=affine)
    assert wilcoxon_p(rows, "affine") == wilcoxon(affine, pan).pvalue
    rows[-1] = {"pair": "6", "method": "affine", "error": "failed"}
    assert wilcoxon_p(rows, "affine") == wilcoxon(affine[:-1], pan[:-1]).pvalue
    assert np.isnan(wilcoxon_p(rows, "pan"))
    assert np.isnan(wilcoxon_p(table(affine=affine), "affine"))  # nothing to compare with


def test_of_many_regions_the_largest_are_drawn():
    regions = {str(n): {"volume_mm3": float(n % 7)} for n in range(1, 30)}
    assert largest_regions([{"regions": regions}], 4) == ["6", "13", "20", "27"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"methods": "pan,demons"}, "--methods takes some of identity,"),
        ({"pairs": 0}, "--pairs takes a whole number from 1 up, not '0'"),
        ({"optimise": 0}, "--optimise takes"),
        ({"affine": "similarity"}, "--affine is one of"),
        ({"device": "tpu"}, "--device is one of"),
        ({"label_interpolation": "linear"}, "--label_interpolation is one of nearest,"),
        ({"syn_iterations": 40}, "--syn_iterations takes three"),
        ({"methods": "voxelmorph"}, "needs --voxelmorph_weights"),
        ({"weights": "missing.pt"}, "missing.pt.* do not exist"),
        ({"dataset": "missing"}, "There is no missing/dataset.json"),
        ({"spacing_mm": 0}, "--spacing_mm must be above 0 mm, not 0"),
        ({"spacing_mm": -1}, "--spacing_mm must be above 0 mm, not -1"),
        ({"spacing_mm": "thin"}, "spacing_mm takes a number, not 'thin'"),
    ],
)
def test_bad_input_is_refused_before_any_work(options, tmp_path, wrong, sentence):
    with pytest.raises((ValueError, OSError), match=sentence):
        run(**(options | wrong), output_dir=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["accuracy", "lesions", "verdicts"])
@pytest.mark.parametrize("key", ["moving_mask", "fixed_cost_mask", "initial_transform"])
def test_pairs_with_what_benchmarks_do_not_read_are_refused(command, key, small_dataset, tmp_path):
    pair = {"moving": "images/phantom_000.nii.gz", "fixed": "images/phantom_001.nii.gz", key: "extra.nii.gz"}
    listed = {k: str(small_dataset / v) if k in ("moving", "fixed") else v for k, v in pair.items()}
    (tmp_path / "extra.nii.gz").touch()
    (tmp_path / "dataset.json").write_text(json.dumps({"test": [listed]}))
    foreign = {"foreign": str(small_dataset)} if command == "verdicts" else {}
    with pytest.raises(ValueError, match=rf"reads images, labels and landmarks alone, .* has '{key}': list it without"):
        commands[command](str(tmp_path), output_dir=str(tmp_path / "out"), split="test", **foreign)


def test_images_without_labels_are_refused(options, small_dataset, tmp_path):
    listing = json.loads((small_dataset / "dataset.json").read_text())
    bare = [{"image": str(small_dataset / item["image"])} for item in listing["test"]]
    (tmp_path / "dataset.json").write_text(json.dumps({"test": bare}))
    with pytest.raises(ValueError, match="needs a label map for every image"):
        run(**(options | {"dataset": str(tmp_path)}), output_dir=str(tmp_path / "out"))


@pytest.mark.parametrize("arguments", [["speed"], []])
def test_speed_is_what_the_benchmark_command_does_by_default(arguments, monkeypatch, capsys):
    def speed(repeats: int) -> None:
        sys.stdout.write(f"{repeats} turns")

    monkeypatch.setitem(commands, "speed", speed)
    monkeypatch.setattr(sys, "argv", ["bundle", "benchmark", *arguments, "--repeats", "2"])
    main()
    assert capsys.readouterr().out == "2 turns"


def test_the_accuracy_command_says_in_one_sentence_what_is_wrong(monkeypatch, capsys, small_dataset, tmp_path):
    words = ["bundle", "benchmark", "accuracy", "--dataset", str(small_dataset), "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*words, "--methods", "pan-optimised,demons"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("error: --methods takes some of ")
