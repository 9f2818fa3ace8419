"""The comparison: its numbers are the metrics', and what is done is kept."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.benchmark import accuracy, worker
from bundle.benchmark.accuracy import compare
from bundle.benchmark.measure import MARGIN, Common, transform_of, visible
from bundle.benchmark.methods import Linear, Network
from bundle.benchmark.tables import markdown, summarise
from bundle.commands.benchmark import accuracy as run
from bundle.data import draw_pairs, open_dataset
from bundle.fields import compose
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

COMMON = Common(affine="center", spacing_mm=5.0)


def rows_of(path):
    lines = path.read_text().splitlines()
    return [dict(zip(lines[0].split(","), line.split(","))) for line in lines[1:]]


def test_every_table_and_figure_is_there(benchmark, options):
    folder, summary = benchmark
    pictures = ("boxplot.png", "dsc_against_time.png", "examples.png")
    files = {"pairs.csv", "regions.csv", "summary.csv", "summary.md", *pictures}
    assert {path.name for path in folder.iterdir()} == {*files, "cache"}
    assert all(imread(folder / name).std() > 0 for name in pictures)
    assert [line["method"] for line in summary] == options["methods"].split(",")
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


def test_a_table_says_that_its_networks_keep_their_folds(options, tmp_path, in_this_process):
    for remove in (True, False):
        folder = tmp_path / str(remove)
        run(**options | {"methods": "pan"}, output_dir=str(folder), pairs=1, spacing_mm=5.0, remove_folds=remove)
        assert ("networks as they fold" in (folder / "summary.md").read_text()) != remove
    with pytest.raises(ValueError, match="remove_folds takes True or False"):
        run(**options, output_dir=str(tmp_path / "out"), remove_folds="no")


def test_pairs_of_long_names_are_kept_on_disk_too(pairs, tmp_path, in_this_process):
    for letter in "ab":
        renamed = [pairs[0] | {"name": f"{letter * 118}_to_{'c' * 118}"}]
        for _ in range(2):
            (row,) = compare(renamed, {"pan-optimised": Linear()}, COMMON, tmp_path / "cache")
            assert "error" not in row
    assert in_this_process == [f"{letter * 118}_to_{'c' * 118}" for letter in "ab"]


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
