"""What a comparison found, in pictures."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bundle.benchmark.measure import PLANES
from bundle.benchmark.tables import REFERENCE
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch

__all__ = ["write_figures"]

Row = Mapping[str, Any]

FIGURES = ("boxplot.png", "dsc_against_time.png", "examples.png")
REGIONS = 12
EXAMPLES = 3


def write_figures(
    rows: Sequence[Row], summary: Sequence[Mapping[str, Any]], regions: Mapping[int, str], folder: Path
) -> None:
    """Write ``boxplot.png``, ``dsc_against_time.png`` and ``examples.png``, of what the methods finished, if anything.

    Args:
        rows: from ``compare``.
        summary: from ``summarise``.
        regions: names by label, as far as there are any.
        folder: to write to.
    """
    for name in FIGURES:
        (folder / name).unlink(missing_ok=True)  # an earlier call's
    finished = [row for row in rows if not row.get("error")]
    if not any(row["regions"] for row in finished):
        return
    methods = list(dict.fromkeys(row["method"] for row in finished))
    colours = {method: colormaps["tab10"](i % 10) for i, method in enumerate(methods)}
    figures = (
        boxplot(finished, regions, colours),
        dsc_against_time([line for line in summary if line["pairs"]], colours),
        examples(finished, [m for m in methods if m != "identity"]),
    )
    for name, figure in zip(FIGURES, figures):
        figure.savefig(folder / name, dpi=120)


def boxplot(rows: Sequence[Row], regions: Mapping[int, str], colours: Mapping[str, Any]) -> Figure:
    """Draw the DSC of each region over the pairs, methods side by side; of many regions the largest."""
    labels = largest_regions(rows)
    figure = Figure(figsize=(2 + 0.22 * len(labels) * (len(colours) + 2), 5), layout="constrained")
    ax = figure.add_subplot()
    for i, (method, colour) in enumerate(colours.items()):
        values = [
            [r["regions"][label]["dsc"] for r in rows if r["method"] == method and label in r["regions"]]
            for label in labels
        ]
        positions = [n * (len(colours) + 1) + i for n in range(len(labels))]
        boxes = ax.boxplot(values, positions=positions, widths=0.8, patch_artist=True, flierprops={"markersize": 2})
        for box, median in zip(boxes["boxes"], boxes["medians"]):
            box.set_facecolor(colour)
            median.set_color("black")
    middle = (len(colours) - 1) / 2
    ticks = [n * (len(colours) + 1) + middle for n in range(len(labels))]
    ax.set_xticks(ticks, [regions.get(int(label), label) for label in labels], rotation=30, ha="right")
    ax.set_ylabel("DSC")
    handles = [Patch(color=c, label=m) for m, c in colours.items()]
    figure.legend(handles=handles, fontsize=8, loc="outside upper center", ncols=len(handles))
    return figure


def largest_regions(rows: Sequence[Row], count: int = REGIONS) -> list[str]:
    """Choose the labels with the largest mean volume in the fixed images, in descending order."""
    volumes: dict[str, list[float]] = {}
    for row in rows:
        for label, values in row["regions"].items():
            volumes.setdefault(label, []).append(values["volume_mm3"])
    return sorted(volumes, key=lambda label: -float(np.mean(volumes[label])))[:count]


def dsc_against_time(summary: Sequence[Mapping[str, Any]], colours: Mapping[str, Any]) -> Figure:
    """Draw mean DSC, with its standard deviation, against the seconds of the deformable stage."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    ax = figure.add_subplot()
    for line in summary:
        where = line["seconds_deformable_mean"], line["dsc_mean"]
        ax.errorbar(*where, yerr=line["dsc_sd"], fmt="o", capsize=3, color=colours[line["method"]])
        ax.annotate(line["method"], where, xytext=(6, 4), textcoords="offset points", fontsize=9)
    ax.set_xscale("log")
    ax.margins(x=0.2, y=0.1)  # room for the names
    ax.set_xlabel("field and resampling, s")
    ax.set_ylabel("DSC")
    ax.grid(alpha=0.3)
    return figure


def examples(rows: Sequence[Row], methods: Sequence[str]) -> Figure:
    """Show the best, the median and the worst pair: fixed, moving, what each method made of it; a plane a row.

    The moving image stands where its header puts it, as ``identity`` leaves it.
    """
    pairs, columns = best_median_worst(rows), ["fixed", "moving", *methods]
    figure = Figure(figsize=(1.6 * len(columns), 6.0 * len(pairs)), facecolor="black", layout="constrained")
    blocks = dict(zip(pairs, figure.subfigures(len(pairs), squeeze=False)[:, 0]))
    axes = {pair: block.subplots(len(PLANES), len(columns), squeeze=False) for pair, block in blocks.items()}
    for pair, block in blocks.items():
        block.set_facecolor("black")
        block.suptitle(_across(f"{pairs[pair]}: {pair}", len(columns)), color="white", fontsize=8)
        for ax in axes[pair].flat:
            ax.set_axis_off()
        for column, ax in zip(columns, axes[pair][0]):
            ax.set_title(column, color="white", fontsize=8)
    for row in (row for row in rows if row["pair"] in pairs):
        shown = {columns.index(row["method"]): ("warped", row["pictures"])} if row["method"] in methods else {}
        shown |= {i: (name, row["pictures_before"]) for i, name in enumerate(columns[:2])}
        for where, (name, path) in shown.items():
            with np.load(path) as pictures:
                for n, plane in enumerate(PLANES):
                    picture = pictures[f"{name}_{plane}"].T
                    axes[row["pair"]][n, where].imshow(picture, origin="lower", cmap="gray", vmin=0, vmax=255)
        if row["method"] in methods and not math.isnan(row["dsc"]):
            title = axes[row["pair"]][0, columns.index(row["method"])].title
            title.set_text(f"{row['method']}\nDSC {row['dsc']:.3f}")
    return figure


def _across(text: str, columns: int) -> str:
    """Break text so that it fits the width of the columns; names of images have no spaces to break at."""
    return "\n".join(textwrap.wrap(text.replace("_to_", " to "), 22 * columns))


def best_median_worst(rows: Sequence[Row]) -> dict[str, str]:
    """Name the pairs of PAN's best, median and worst DSC; of the last method's, where PAN is not among them.

    Returns:
        What a pair is, by its name: of two pairs the best and the worst, without any DSC the first ones.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    judged = REFERENCE if REFERENCE in methods else methods[-1]
    dsc = {row["pair"]: row["dsc"] for row in rows if row["method"] == judged and not math.isnan(row["dsc"])}
    if not dsc:
        return dict.fromkeys(list(dict.fromkeys(row["pair"] for row in rows))[:EXAMPLES], "pair")
    ranked = sorted(dsc, key=lambda pair: -dsc[pair])
    places = {len(ranked) // 2: "median", len(ranked) - 1: "worst", 0: "best"}
    return {ranked[place]: places[place] for place in sorted(places)}
