"""What a comparison found, in numbers: CSV, and a Markdown table as papers have it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bundle.io.files import write_text
from bundle.io.tables import markdown_table, write_csv
from scipy.stats import wilcoxon

__all__ = ["REFERENCE", "markdown", "summarise", "wilcoxon_p", "write_tables"]

Row = Mapping[str, Any]

REFERENCE = "pan"
"""The method that the others are tested against."""

COLUMNS = {  # of the tables: title and decimals
    "dsc": ("DSC", 3),
    "hd95_mm": ("HD95, mm", 2),
    "assd_mm": ("ASSD, mm", 2),
    "tre_mm": ("TRE, mm", 2),
    "folding_percent": ("folding, %", 4),
    "ndv_percent": ("NDV, %", 4),
    "log_jacobian_sd": ("SD log J", 3),
    "learn2reg_log_jacobian_sd": ("SDlogJ (Learn2Reg)", 3),
    "seconds_align": ("align, s", 1),
    "seconds_register": ("field, s", 2),
    "seconds_resample": ("resampling, s", 2),
    "seconds_deformable": ("deformable, s", 2),
    "peak_memory_mb": ("memory, MB", 0),
}
OF_EACH_PAIR = ("seconds_register", "seconds_resample")  # left out of the Markdown
IF_THERE = ("tre_mm", "ndv_percent", "learn2reg_log_jacobian_sd")  # which a data set, or older rows, may lack
WITHOUT_SD = ("seconds_align", "seconds_deformable", "peak_memory_mb")
QUANTILE = 0.3
"""Of the pairs' DSC: what the worst third reaches at best, DSC30."""


def write_tables(rows: Sequence[Row], regions: Mapping[int, str], title: str, folder: Path) -> list[dict[str, Any]]:
    """Write ``pairs.csv``, ``regions.csv``, ``summary.csv`` and ``summary.md``; without any region no ``regions.csv``.

    Args:
        rows: from ``compare``.
        regions: names by label, as far as there are any.
        title: what the Markdown table says above itself.
        folder: to write to.

    Returns:
        The rows of the summary.
    """
    pairs = [{k: row.get(k, math.nan) for k in ("pair", "method", *COLUMNS)} for row in rows]
    write_csv(folder / "pairs.csv", [p | {"error": row.get("error", "")} for p, row in zip(pairs, rows)])
    one_each = [
        {"pair": row["pair"], "method": row["method"], "label": label, "region": regions.get(int(label), label)}
        | values
        for row in rows
        for label, values in row.get("regions", {}).items()
    ]
    (folder / "regions.csv").unlink(missing_ok=True)  # an earlier call's
    if one_each:
        write_csv(folder / "regions.csv", one_each)
    summary = summarise(rows)
    write_csv(folder / "summary.csv", summary)
    write_text(folder / "summary.md", f"{title}\n\n{markdown(summary)}")
    return summary


def summarise(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Average every measure over the pairs that a method finished.

    Args:
        rows: from ``compare``.

    Returns:
        For each method ``pairs`` (those with a DSC), ``failed``, ``unlabelled`` (finished, but without any label to
        measure), mean and standard deviation (of the population, as in the evaluation) of each measure, ``dsc30`` (the
        30 % quantile over the pairs), and ``wilcoxon_p`` of its DSC against ``REFERENCE``.
    """
    summary = []
    for method in dict.fromkeys(row["method"] for row in rows):
        finished = [row for row in rows if row["method"] == method and not row.get("error")]
        failed = sum(row["method"] == method for row in rows) - len(finished)
        dsc = np.array([row["dsc"] for row in finished], dtype=float)
        scored = int(np.isfinite(dsc).sum())
        line: dict[str, Any] = {"method": method, "pairs": scored, "failed": failed}
        line["unlabelled"] = len(finished) - scored
        for name in COLUMNS:
            values = np.array([row.get(name, math.nan) for row in finished], dtype=float)
            values = values[np.isfinite(values)]
            line[f"{name}_mean"] = float(values.mean()) if len(values) else math.nan
            line[f"{name}_sd"] = float(values.std()) if len(values) else math.nan
        line["dsc30"] = float(np.nanquantile(dsc, QUANTILE)) if scored else math.nan
        summary.append(line | {"wilcoxon_p": wilcoxon_p(rows, method)})
    return summary


def wilcoxon_p(rows: Sequence[Row], method: str, reference: str = REFERENCE) -> float:
    """Test whether two methods differ in DSC: Wilcoxon's signed-rank test, two-sided, over the pairs both finished.

    Returns:
        The p-value; NaN for the reference itself, without two pairs in common, or without any difference.
    """
    dsc: dict[str, dict[str, float]] = {method: {}, reference: {}}
    for row in rows:
        if row["method"] in dsc and not row.get("error") and math.isfinite(row["dsc"]):
            dsc[row["method"]][row["pair"]] = row["dsc"]
    shared = sorted(dsc[method].keys() & dsc[reference].keys())
    first, second = ([dsc[name][pair] for pair in shared] for name in (method, reference))
    if len(shared) < 2 or first == second:
        return math.nan
    return float(wilcoxon(first, second).pvalue)


def markdown(summary: Sequence[Mapping[str, Any]]) -> str:
    """Lay a summary out as a Markdown table, with what failed or has no label below; what no method has is left out."""
    unknown = {name for name in IF_THERE if all(math.isnan(line[f"{name}_mean"]) for line in summary)}
    first, *shown = [name for name in COLUMNS if name not in (*OF_EACH_PAIR, *unknown)]
    titles = [COLUMNS[first][0], "DSC30", *(COLUMNS[name][0] for name in shown)]
    head = ["method", "pairs", *titles, f"p against {REFERENCE}"]
    lines = []
    for line in summary:
        p = line["wilcoxon_p"]
        dsc30 = "–" if math.isnan(line["dsc30"]) else f"{line['dsc30']:.3f}"
        cells = [line["method"], str(line["pairs"]), _cell(line, first), dsc30, *(_cell(line, name) for name in shown)]
        lines.append([*cells, "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"])
    table = markdown_table(head, lines)
    failed = [f"{line['method']} on {line['failed']}" for line in summary if line["failed"]]
    if failed:
        table += f"\nFailed, and left out of the means: {', '.join(failed)} pairs (`error` in pairs.csv).\n"
    bare = [f"{line['method']} on {line['unlabelled']}" for line in summary if line["unlabelled"]]
    if bare:
        table += f"\nWithout a label to measure, and in no mean of the overlap: {', '.join(bare)} pairs.\n"
    return table


def _cell(line: Mapping[str, Any], name: str) -> str:
    mean, decimals = line[f"{name}_mean"], COLUMNS[name][1]
    if math.isnan(mean):
        return "–"
    return f"{mean:.{decimals}f}" + ("" if name in WITHOUT_SD else f" ± {line[f'{name}_sd']:.{decimals}f}")
