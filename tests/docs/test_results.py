"""The numbers of the documents are what the benchmark makes of the rows in docs/results."""

import csv
import json
import math
import re

import numpy as np
import pytest
from bundle.benchmark.equal_terms import NETWORKS, equal_terms_markdown
from bundle.benchmark.lesions import lesions_markdown
from bundle.benchmark.rescans import rescans_markdown
from bundle.benchmark.tables import markdown, summarise
from bundle.io.tables import read_csv

TABLES = dict.fromkeys(("brains", "heads", "ixi2mm_masked", "ixi2mm", "phantom"), "accuracy.md")
TABLES |= dict.fromkeys(("hippocampus", "hippocampus_propagated", "another_scanner"), "accuracy.md") | {
    "symmetric": "register.md",
    "across_contrasts": "accuracy.md",
}
TABLES |= dict.fromkeys(("equal_terms_hippocampus", "equal_terms_ixi2mm_masked"), "peers.md")


def results(bundle_root, name):
    text = {"pair", "method", "error"}
    with (bundle_root / "docs" / "results" / f"{name}.csv").open(newline="") as file:
        return [{k: v if k in text else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def mean(found, method, key, digits=3):
    """As the documents give it."""
    values = [row[key] for row in found if row["method"] == method]
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_benchmark_is_the_summary_of_its_rows_the_same_pairs_for_every_method(bundle_root, name):
    found = results(bundle_root, name)
    by_method = {}
    for row in found:
        by_method.setdefault(row["method"], []).append(row["pair"])
    assert all(pairs == by_method["pan"] for pairs in by_method.values())
    assert markdown(summarise(found)) in (bundle_root / "docs" / TABLES[name]).read_text()


def test_the_model_card_the_readme_and_the_metadata_tell_what_the_benchmark_found(bundle_root):
    heads, masked, crops = (results(bundle_root, name) for name in ("heads", "brains", "hippocampus"))
    voted, voted_crops = results(bundle_root, "ixi2mm_propagated"), results(bundle_root, "hippocampus_propagated")
    card = (bundle_root / "docs" / "README.md").read_text()
    assert f"| Dice by the headers | {mean(heads, 'identity', 'dsc')} |" in card
    aligned = f"{mean(heads, 'affine', 'dsc')} | {mean(crops, 'affine', 'dsc')}"
    assert f"| Dice after the pre-alignment | {aligned} |" in card
    assert f"| **Dice after PAN** | **{mean(heads, 'pan', 'dsc')}** | **{mean(crops, 'pan', 'dsc')}** |" in card
    assert f"propagates them | {mean(voted, 'pan', 'dsc')} | {mean(voted_crops, 'pan', 'dsc')} |" in card
    assert f"| ASSD, mm | {mean(heads, 'pan', 'assd_mm', 2)} |" in card
    assert f"| HD95, mm | {mean(heads, 'pan', 'hd95_mm', 2)} |" in card
    assert f"| folding, % of voxels | {mean(heads, 'pan', 'folding_percent')} |" in card
    assert f"| SD of log-Jacobian | {mean(heads, 'pan', 'log_jacobian_sd')} |" in card

    dsc = {
        (name, method): mean(found, method, "dsc").split()[0]
        for name, found in (("heads", heads), ("masked", masked))
        for method in ("pan", "pan-optimised", "greedy")
    }
    readme = " ".join((bundle_root / "README.md").read_text().split())
    assert f"(DSC {dsc['masked', 'pan']} and {dsc['masked', 'greedy']})" in readme
    assert f"on whole heads ({dsc['heads', 'pan']} and {dsc['heads', 'greedy']})" in readme
    assert f"reach {dsc['masked', 'pan-optimised']} and {dsc['heads', 'pan-optimised']}." in readme
    earlier = results(bundle_root, "ixi2mm_masked")
    once, syn = (mean(earlier, method, "dsc").split()[0] for method in ("pan", "syn-cc"))
    assert f"without labels, by an earlier build, it was {once} beside {syn} of SyN with cross-correlation" in readme

    metrics = json.loads((bundle_root / "configs" / "metadata.json").read_text())["eval_metrics"]
    shipped = {"ixi2mm_mean_dice": heads, "hippocampus_mean_dice": crops}
    assert metrics == {key: float(mean(found, "pan", "dsc").split()[0]) for key, found in shipped.items()}


def ahead_of(other, found):
    """By how much one pass and the optimised field overlap more than another method, pair by pair."""
    dsc = {}
    for row in found:
        dsc.setdefault(row["method"], []).append(row["dsc"])
    return [np.subtract(dsc[method], dsc[other]) for method in ("pan", "pan-optimised")]


def test_the_benchmark_tells_how_far_and_how_often_pan_is_ahead_of_greedy(bundle_root):
    document = " ".join((bundle_root / "docs" / "accuracy.md").read_text().split())
    once, optimised = ahead_of("greedy", results(bundle_root, "brains"))
    assert (
        f"One pass overlaps {once.mean():.3f} more than greedy with local correlation, in {(once > 0).sum()} of"
        in document
    )
    assert f"of optimisation {optimised.mean():.3f} more, in {(optimised > 0).sum()}. PAN was" in document
    once, optimised = ahead_of("greedy", results(bundle_root, "heads"))
    assert f"One pass overlaps {once.mean():.3f} more than greedy, in {(once > 0).sum()} of the sixty pairs" in document
    assert f"optimised {optimised.mean():.3f} more, in {(optimised > 0).sum()}. What" in document


def test_the_benchmark_tells_how_far_and_how_often_pan_is_ahead_of_syn(bundle_root):
    document = " ".join((bundle_root / "docs" / "accuracy.md").read_text().split())
    once, optimised = ahead_of("syn-cc", results(bundle_root, "ixi2mm_masked"))
    assert f"One pass of the network is {once.mean():.3f} above SyN" in document
    assert f"five steps of optimisation are {optimised.mean():.3f} above it" in document
    assert "both are ahead in every one of the sixty pairs" in document
    assert min(once.min(), optimised.min()) > 0

    once, optimised = ahead_of("syn-cc", results(bundle_root, "ixi2mm"))
    assert f"One pass is {once.mean():.3f} above SyN" in document
    assert f"here and ahead in {(once > 0).sum()} of the 60 pairs" in document
    assert f"optimised it is {optimised.mean():.3f} above and ahead in every pair" in document
    assert optimised.min() > 0


def test_the_table_of_training_variants_is_what_the_evaluations_found(bundle_root):
    document = (bundle_root / "docs" / "training_variants.md").read_text()
    with (bundle_root / "docs" / "results" / "training_variants.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    for row in rows:
        dice, sd, folding, jacobian = (
            float(row[key]) for key in ("dice", "dice_sd", "folding_percent", "log_jacobian_sd")
        )
        found = f"{dice:.3f} ± {sd:.3f} | {folding:.4f} | {jacobian:.3f}"
        assert f"| {row['variant']} | {row['options']} | {found} |\n" in document


def test_the_table_of_trainings_for_any_contrast_is_what_the_benchmark_found(bundle_root):
    document = (bundle_root / "docs" / "training_variants.md").read_text()
    with (bundle_root / "docs" / "results" / "any_contrast_variants.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    for row in rows:
        cells = row["variant"], row["options"] or "–", row["steps"] or "–", row["across"], row["one"]
        assert f"| {' | '.join(cells)} |\n" in document


@pytest.mark.parametrize(
    ("name", "key", "kinds"),
    [("rescans", "change", {"growth", "shift"}), ("rescans_elsewhere", "contrast", {"T1", "FLAIR"})],
)
def test_the_tables_of_one_person_s_scans_are_what_the_benchmark_found(bundle_root, name, key, kinds):
    document = (bundle_root / "docs" / "accuracy.md").read_text()
    rows = {}
    for row in read_csv(bundle_root / "docs" / "results" / f"{name}.csv"):
        numbers = {k: float(v) if v else math.nan for k, v in row.items() if k not in (key, "image")}
        rows.setdefault(row[key], []).append(numbers)
    assert set(rows) == kinds
    peaks = [[row["peak_mm"] for row in found] for found in rows.values()]
    assert peaks[0] == peaks[1]
    for found in rows.values():
        assert rescans_markdown(found) in document


def test_the_table_of_lesions_is_what_the_benchmark_found(bundle_root):
    text = ("pair", "image")
    rows = [
        {key: value if key in text else float(value) for key, value in row.items()}
        for row in read_csv(bundle_root / "docs" / "results" / "lesions.csv")
    ]
    assert lesions_markdown(rows) in (bundle_root / "docs" / "register.md").read_text()


def test_the_table_of_optimisation_steps_is_what_the_benchmark_found(bundle_root):
    document = (bundle_root / "docs" / "accuracy.md").read_text()
    found = results(bundle_root, "optimisation_steps")
    assert [row["steps"] for row in found] == [0, 5, 20]
    for row in found:
        steps, dice = f"{row['steps']:.0f}" if row["steps"] else "none", f"{row['dice']:.3f} ± {row['dice_sd']:.3f}"
        regularity = f"{row['folding_percent']:.4f} | {row['log_jacobian_sd']:.3f}"
        assert f"| {steps} | {dice} | {regularity} | {row['seconds']:.1f} |\n" in document


def test_the_benchmark_tells_how_far_and_how_often_pan_is_ahead_across_contrasts(bundle_root):
    document = " ".join((bundle_root / "docs" / "accuracy.md").read_text().split())
    dsc = {}
    for row in results(bundle_root, "across_contrasts"):
        dsc.setdefault(row["method"], {})[row["pair"]] = row["dsc"]
    pan, greedy, nmi, syn, affine = (
        f"{np.mean([*dsc[name].values()]):.3f}" for name in ("pan", "greedy", "greedy-nmi", "syn-mi", "affine")
    )
    readme, page = (" ".join((bundle_root / p).read_text().split()) for p in ("README.md", "docs/benchmark.md"))
    assert f"T1 and FLAIR heads overlap by {pan} in one pass, {greedy} by greedy." in readme
    assert f"one pass {pan}, greedy with NCC {greedy}, with NMI {nmi}, SyN with mutual information {syn}" in page
    assert f"the alignment of all {affine}." in page
    ahead = [value - dsc["greedy"][pair] for pair, value in dsc["pan"].items()]
    on_t1, on_flair = (np.mean([v for p, v in dsc["pan"].items() if p.endswith(name)]) for name in ("_T1", "_FLAIR"))
    assert f"overlap is {on_t1:.3f}, with the FLAIR image {on_flair:.3f}" in document
    often = f"in {np.sum(np.array(ahead) > 0)} of the {len(ahead)} pairs"
    assert f"gains {np.mean(ahead):.3f} on average, and {often}, over greedy, the best of the others." in document


def test_the_table_of_contrasts_and_scanners_is_what_the_benchmark_found(bundle_root):
    document, found = (bundle_root / "docs" / "accuracy.md").read_text(), {}
    for row in read_csv(bundle_root / "docs" / "results" / "contrasts_and_scanners.csv"):
        found.setdefault((row["images"], row["weights"]), []).append(float(row["dsc"]))
    kinds = {images for images, _ in found}
    assert kinds == {"T1 and T1, two scanners", "FLAIR and T1, two scanners", "FLAIR and T1, one scanner"}
    for images in kinds:
        dsc = [found[images, weights] for weights in ("none", "model.pt", "any_contrast.pt", "default")]
        (pairs,) = {len(values) for values in dsc}
        cells = " | ".join(f"{np.mean(values):.3f} ± {np.std(values):.3f}" for values in dsc)
        assert f"| {images} | {pairs} | {cells} |\n" in document


def test_the_table_of_tissues_is_of_its_rows_and_their_order_tells_contrasts_apart(bundle_root):
    document, bound = (bundle_root / "docs" / "accuracy.md").read_text(), recommended_bound(bundle_root)
    found = {}
    for row in read_csv(bundle_root / "docs" / "results" / "tissues.csv"):
        both = float(row["contrast_correlation"]), float(row["tissue_correlation"])
        found.setdefault(row["images"], []).append(both)
    for images, rows in found.items():
        cells = " | ".join(f"{min(values):.2f} to {max(values):.2f}".replace("-", "−") for values in zip(*rows))
        assert f"| {images} | {len(rows)} | {cells} |\n" in document
        assert {tissues < bound for _, tissues in rows} == {images.startswith("FLAIR and T1")}
    assert f"Below {bound:g} (`one_contrast`" in document


def recommended_bound(bundle_root):
    return json.loads((bundle_root / "models" / "model.json").read_text())["one_contrast"]


@pytest.mark.parametrize("name", ["equal_terms", "equal_terms_brains"])
def test_the_table_of_trainings_on_equal_terms_is_what_they_left(bundle_root, name):
    found = read_csv(bundle_root / "docs" / "results" / f"{name}.csv")
    assert equal_terms_markdown(found) in (bundle_root / "docs" / "peers.md").read_text()
    assert {row["network"] for row in found if row["chosen"] == "yes"} == set(NETWORKS)


def test_the_summary_tells_what_the_networks_reached_on_equal_terms(bundle_root):
    crops, brains = (results(bundle_root, f"equal_terms_{name}") for name in ("hippocampus", "ixi2mm_masked"))
    named = {"affine": "affine", "SyN-MI": "syn-mi", "SyN-CC": "syn-cc", "elastix": "elastix", "PICSL greedy": "greedy"}
    named |= {"VoxelMorph": "voxelmorph", "Dual-PRNet++": "dual-prnet", "ViT-V-Net": "vit-v-net"}
    named |= {"TransMorph": "transmorph", "PAN": "pan"}
    document = (bundle_root / "docs" / "benchmark.md").read_text()
    for name, method in named.items():
        in_crops, in_brains = (mean(rows, method, "dsc").split()[0] for rows in (crops, brains))
        assert f"| {name} | {in_crops} | {in_brains} |\n" in document


def test_every_file_of_results_is_held_to_a_document(bundle_root):
    found = {path.stem for path in (bundle_root / "docs" / "results").iterdir()}
    others = {"equal_terms", "equal_terms_brains", "training_variants", "optimisation_steps", "looks"}
    others |= {"any_contrast_variants", "rescans", "rescans_elsewhere", "lesions", "contrasts_and_scanners", "tissues"}
    assert found == {*TABLES, *others, "ixi2mm_propagated"}


def test_the_summaries_of_the_benchmark_are_those_of_the_rows(bundle_root):
    document = (bundle_root / "docs" / "benchmark.md").read_text()
    today, earlier = document.split("Beside more methods, by an earlier build")
    crops, table = results(bundle_root, "hippocampus"), r"^\| (\S+) \| (.*) \|$"
    for part, names, others in ((today, ("brains", "heads"), {"greedy"}), (earlier, ("ixi2mm_masked", "ixi2mm"), None)):
        brains, heads = (results(bundle_root, name) for name in names)
        rows = {
            name: cells.replace("*", "").split(" | ") for name, cells in re.findall(table, part, re.M) if " ± " in cells
        }
        others = others or {"elastix", "syn-cc", "voxelmorph"}
        assert set(rows) == {"affine", "syn-mi", "pan", "pan-optimised", *others}
        for method, cells in rows.items():
            in_heads, in_crops = (
                mean(found, method, "dsc") if any(row["method"] == method for row in found) else "–"
                for found in (heads, crops)
            )
            seconds, folding = (
                mean(brains, method, key, n).split()[0]
                for key, n in (("seconds_deformable", 1), ("folding_percent", 4))
            )
            crop = [in_crops] if part is today else []
            assert cells == [mean(brains, method, "dsc"), seconds, in_heads, *crop, folding]


def test_the_last_look_at_each_test_split_is_what_the_documents_report(bundle_root):
    with (bundle_root / "docs" / "results" / "looks.csv").open(newline="") as file:
        last = {row["data"]: row["dsc"] for row in csv.DictReader(file)}
    shipped = {"hippocampus test": "hippocampus", "hippocampus test, propagated labels": "hippocampus_propagated"}
    shipped |= {"IXI test, whole heads": "heads", "IXI test, brains": "brains"}
    assert last == {data: mean(results(bundle_root, name), "pan", "dsc").split()[0] for data, name in shipped.items()}
