"""What a comparison of methods left: its summary, the spread over the pairs, and the pairs that came out worst."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from bundle.io.tables import read_csv
from bundle.report.parts import draw, figure, section, table
from matplotlib.figure import Figure

__all__ = ["comparison_sections"]

WORST = 5
MEASURES = {"dsc": "DSC", "dice_after": "DSC", "similarity_after": "similarity"}  # of benchmark, of evaluation
ONE_METHOD = {"method": "the network"}  # of an evaluation, whose rows name none
PICTURES = {
    "boxplot.png": "DSC of the largest regions over the pairs, methods side by side",
    "dsc_against_time.png": "DSC against seconds, a point a method",
    "examples.png": "examples: the pairs that came out best, in the middle and worst",
}

Row = Mapping[str, str]


def comparison_sections(folder: Path) -> list[str]:
    """Make the sections of a benchmark's accuracy or an evaluation: summary, box plot, worst pairs.

    An evaluation without labels is shown by its similarity. There are none without ``pairs.csv``.
    """
    if not (folder / "pairs.csv").is_file():
        return []
    pairs = [ONE_METHOD | row for row in read_csv(folder / "pairs.csv")]
    summary = read_csv(folder / "summary.csv") if (folder / "summary.csv").is_file() else []
    found = [section("Summary", _summary(summary))] if summary else []
    measure = next((key for key in MEASURES if any(_number(row.get(key)) is not None for row in pairs)), None)
    if measure:
        title = "Overlap" if MEASURES[measure] == "DSC" else "Similarity"
        found.append(section(f"{title} of the pairs", _box_plot(pairs, measure), *_pictures(folder)))
        found.append(section(f"Worst {WORST} pairs of each method", _worst(pairs, measure)))
    failed = [row for row in pairs if row.get("error")]
    if failed:
        rows = [(row["pair"], row.get("method", ""), row["error"]) for row in failed]
        found.append(section("Failed", table(("pair", "method", "why"), rows)))
    return found


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return None if math.isnan(value) else value


def _shown(text: str | None) -> str:
    """Round a number; other text stays, and what is missing is a dash."""
    value = _number(text)
    if value is not None:
        return f"{value:.4g}"
    return "–" if text in (None, "", "nan") else str(text)


def _summary(rows: Sequence[Row]) -> str:
    """A row a method; mean and standard deviation in one column."""
    columns = [c for c in rows[0] if not c.endswith("_sd") or f"{c[:-3]}_mean" not in rows[0]]
    cells = [[_mean_and_sd(row, c) if c.endswith("_mean") else _shown(row[c]) for c in columns] for row in rows]
    return table([c.removesuffix("_mean").replace("_", " ") for c in columns], cells)


def _mean_and_sd(row: Row, column: str) -> str:
    mean, sd = _shown(row[column]), row.get(f"{column.removesuffix('_mean')}_sd")
    return f"{mean} ± {_shown(sd)}" if sd and mean != "–" else mean


def _box_plot(rows: Sequence[Row], measure: str) -> str:
    values: dict[str, list[float]] = {}
    for row in rows:
        value = _number(row.get(measure))
        if value is not None:
            values.setdefault(row.get("method", ""), []).append(value)
    drawing = Figure(figsize=(2 + 0.9 * len(values), 3.5), layout="constrained")
    ax = drawing.add_subplot(ylabel=MEASURES[measure])
    ax.boxplot(list(values.values()), tick_labels=list(values))
    ax.tick_params(axis="x", rotation=30)
    words = "; ".join(f"{method}: {min(v):.3f} to {max(v):.3f} over {len(v)} pairs" for method, v in values.items())
    return figure(draw(drawing), f"{MEASURES[measure]} by method. {words}")


def _pictures(folder: Path) -> list[str]:
    return [figure((folder / n).read_bytes(), words) for n, words in PICTURES.items() if (folder / n).is_file()]


def _worst(rows: Sequence[Row], measure: str) -> str:
    methods = dict.fromkeys(row.get("method", "") for row in rows)
    cells = []
    for method in methods:
        own = [(_number(row.get(measure)), row["pair"]) for row in rows if row.get("method", "") == method]
        valued = [(value, pair) for value, pair in own if value is not None]
        cells += [(method, pair, f"{value:.4f}") for value, pair in sorted(valued)[:WORST]]
    return table(("method", "pair", MEASURES[measure]), cells)
