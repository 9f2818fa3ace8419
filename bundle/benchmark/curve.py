"""Accuracy against regularity: each method at several strengths of smoothing, instead of one point."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.benchmark.method import Method
from bundle.benchmark.methods import Network, Options
from bundle.benchmark.peers import Greedy, Syn
from bundle.benchmark.tables import summarise
from bundle.io.tables import write_csv
from matplotlib import colormaps
from matplotlib.figure import Figure

__all__ = ["CURVES", "curve_methods", "write_curve"]

CURVES: Mapping[str, tuple[Sequence[float], Callable[[Options, float], Method]]] = {
    "pan": (
        (0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0),
        lambda o, sigma: Network(o.weights, smoothing=sigma, device=o.device, remove_folds=o.remove_folds),
    ),
    "greedy": (
        (0.3536, 0.7071, 1.0, 1.4142, 2.0, 3.0),
        lambda o, sigma: Greedy(iterations=o.syn_iterations, warp_sigma=sigma),
    ),
    "syn-mi": ((1.0, 2.0, 3.0, 4.0, 6.0), lambda o, sigma: Syn("mattes", 32, o.syn_iterations, sigma)),
    "syn-cc": ((1.0, 2.0, 3.0, 4.0, 6.0), lambda o, sigma: Syn("CC", 2, o.syn_iterations, sigma)),
}
"""By method: the standard deviations of its smoothing, in voxels, and what builds it.

PAN's field is smoothed after it is found; greedy smooths its field, and SyN its velocities, in every step.
"""
REGULARITY = {"log_jacobian_sd": "SD log J", "ndv_percent": "NDV, %"}


def curve_methods(names: Sequence[str], options: Options) -> dict[str, Method]:
    """Build every method at every strength, as ``NAME at SIGMA``.

    Args:
        names: some of ``CURVES``.
        options: what the user chose.

    Raises:
        ValueError: an unknown name, one given twice, or what a method needs is missing.
    """
    if not names or len(set(names)) < len(names) or not set(names) <= set(CURVES):
        raise ValueError(f"--methods takes some of {','.join(CURVES)}, each once, not '{','.join(names)}'.")
    return {
        f"{name} at {sigma:g}": build(options, sigma)
        for name, (sigmas, build) in ((name, CURVES[name]) for name in names)
        for sigma in sigmas
    }


def write_curve(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Write ``curve.csv`` and ``curve.png``.

    Args:
        rows: from ``compare``, by the methods of ``curve_methods``.
        folder: to write to.

    Returns:
        The rows of the file: ``method``, ``smoothing`` (voxels), and the means and standard deviations of
        ``summarise``.
    """
    points = []
    for line in summarise(rows):
        name, sigma = line.pop("method").split(" at ")
        line.pop("wilcoxon_p")  # of methods with other names
        points.append({"method": name, "smoothing": float(sigma), **line})
    write_csv(folder / "curve.csv", points)
    _figure([point for point in points if point["pairs"]]).savefig(folder / "curve.png", dpi=120)
    return points


def _figure(points: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw DSC against both measures of regularity: a line a method, each point with its smoothing."""
    figure = Figure(figsize=(5 * len(REGULARITY), 4), layout="constrained")
    methods = list(dict.fromkeys(point["method"] for point in points))
    for ax, (measure, title) in zip(figure.subplots(1, len(REGULARITY), squeeze=False)[0], REGULARITY.items()):
        for i, method in enumerate(methods):
            own = [point for point in points if point["method"] == method]
            where = [[point[f"{name}_mean"] for point in own] for name in (measure, "dsc")]
            ax.plot(*where, "o-", color=colormaps["tab10"](i % 10), label=method, markersize=4)
            for x, y, point in zip(*where, own):
                ax.annotate(f"{point['smoothing']:g}", (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
        if measure == "ndv_percent":
            ax.set_xscale("symlog", linthresh=1e-4)
        ax.set_xlabel(title)
        ax.set_ylabel("DSC")
        ax.grid(alpha=0.3)
        if methods:
            ax.legend(fontsize=8)
    return figure
