"""Fill the page's template: one HTML file that holds images, viewer, numbers and words."""

import html
import io
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from bundle.report.colours import colour_map
from bundle.report.judgement import Judgement
from bundle.report.overview import LARGEST_JACOBIAN
from bundle.report.volumes import FIELD_STEP_MM, PageContent
from bundle.spatial import Grid
from PIL import Image

__all__ = ["as_json", "asset", "fill_page", "png", "write_page"]

SIGNED, RATIO = "berlin", "PuOr_r"  # colour-blind eyes tell both ends apart; black and white in between
FOLDED_COLOUR = (255, 232, 0)  # yellow: far from both ends of the ratios' colours, in brightness too


def write_page(path: Path, content: PageContent, summary: Mapping[str, Any], judgement: Judgement) -> None:
    """Write ``report.html``: see ``fill_page``."""
    path.write_text(fill_page(content, summary, judgement), encoding="utf-8")


def fill_page(content: PageContent, summary: Mapping[str, Any], judgement: Judgement) -> str:
    """Fill the page of a registration: it needs no other file and asks for nothing from outside.

    Args:
        content: images, labels and field.
        summary: what ``registration.json`` holds; what is left out is not shown.
        judgement: what its numbers say.
    """
    names = {role: Path(str(summary.get(role) or role)).name for role in ("fixed", "moving")}
    data = {
        "names": names,
        "summary": dict(summary),
        "judgement": judgement.as_json(),
        "volumes": content.volumes,
        "grid": _place(content.grid),
        "labels": [str(number) for number in content.labels],  # JavaScript's numbers are exact up to 2**53 alone
        "field": None if content.field is None else _place(content.field_grid) | {"data": content.field},
        "field_step_mm": FIELD_STEP_MM,
        "alignment": np.asarray(content.alignment).tolist(),
        "colours": {"signed": _colours(SIGNED), "ratio": _colours(RATIO, FOLDED_COLOUR)},
        "largest_jacobian": LARGEST_JACOBIAN,
    }
    return Template(asset("report.html")).substitute(
        title=html.escape(f"{names['moving']} onto {names['fixed']}"),
        level=html.escape(judgement.level),
        level_class=judgement.level.replace(" ", "-"),
        headline=html.escape(judgement.headline),
        style=asset("report.css"),
        viewer=asset("viewer.js"),
        script=asset("report.js"),
        licences=html.escape(asset("viewer.LICENSE.txt")),
        data=as_json(data),
    )


def asset(name: str) -> str:
    """Read a file that pages are made of."""
    return files("bundle.report").joinpath("assets").joinpath(name).read_text(encoding="utf-8")


def as_json(data: Any) -> str:
    """Write JSON that a script element may hold: nothing in it can end the element."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def png(picture: Any) -> bytes:
    """Encode (H, W), bytes, as a gray PNG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="png")
    return file.getvalue()


def _place(grid: Grid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "affine": [[float(v) for v in row] for row in grid.affine]}


def _colours(name: str, last: tuple[int, int, int] | None = None) -> list[list[int]]:
    """256 colours of a map, (256, 3); the last one may stand for something else."""
    table = colour_map(name).tolist()
    return table if last is None else [*table[:-1], list(last)]
