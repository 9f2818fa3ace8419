"""The tables of docs/benchmark.md are what the benchmark makes of the rows in docs/results."""

import csv

import pytest
from bundle.benchmark.tables import markdown, summarise

TABLES = ("ixi2mm_masked", "ixi2mm", "phantom", "hippocampus", "hippocampus_propagated")


def rows(path):
    text = {"pair", "method", "error"}
    with path.open(newline="") as file:
        return [{k: v if k in text else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def of_all_methods(found):
    """The rows of those pairs that every method registered, each method's in the same order."""
    by_method = {}
    for row in found:
        by_method.setdefault(row["method"], []).append(row["pair"])
    first, *others = by_method.values()
    shared = [pair for pair in first if all(pair in pairs for pairs in others)]
    assert all([pair for pair in pairs if pair in shared] == shared for pairs in by_method.values())
    return [row for row in found if row["pair"] in shared]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_benchmark_is_the_summary_of_the_pairs_that_all_methods_registered(bundle_root, name):
    found = of_all_methods(rows(bundle_root / "docs" / "results" / f"{name}.csv"))
    assert markdown(summarise(found)) in (bundle_root / "docs" / "benchmark.md").read_text()


def test_the_table_of_training_variants_is_what_the_evaluations_found(bundle_root):
    document = (bundle_root / "docs" / "benchmark.md").read_text()
    with (bundle_root / "docs" / "results" / "training_variants.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            dice, sd, folding, jacobian = (
                float(row[key]) for key in ("dice", "dice_sd", "folding_percent", "log_jacobian_sd")
            )
            found = f"{dice:.3f} ± {sd:.3f} | {folding:.4f} | {jacobian:.3f}"
            assert f"| {row['variant']} | {row['options']} | {found} |\n" in document


def test_the_table_of_optimisation_steps_is_what_the_benchmark_found(bundle_root):
    document = (bundle_root / "docs" / "benchmark.md").read_text()
    found = rows(bundle_root / "docs" / "results" / "optimisation_steps.csv")
    assert [row["steps"] for row in found] == [0, 5, 20]
    for row in found:
        steps, dice = f"{row['steps']:.0f}" if row["steps"] else "none", f"{row['dice']:.3f} ± {row['dice_sd']:.3f}"
        regularity = f"{row['folding_percent']:.4f} | {row['log_jacobian_sd']:.3f}"
        assert f"| {steps} | {dice} | {regularity} | {row['seconds']:.1f} |\n" in document


def test_every_file_of_results_belongs_to_a_table(bundle_root):
    found = {path.stem for path in (bundle_root / "docs" / "results").iterdir()}
    assert found == {*TABLES, "training_variants", "optimisation_steps"}
