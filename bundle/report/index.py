"""The page of a batch: every pair in a table, the worst first, each with a small picture and a link to its report."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from bundle.io.files import write_text
from bundle.report.judgement import FAILED, GOOD, LOOK_HERE
from bundle.report.page import as_json, asset

__all__ = ["write_index"]

NOT_REGISTERED, TO_DO = "not registered", "to do"
ORDER = (NOT_REGISTERED, FAILED, LOOK_HERE, GOOD, TO_DO)


def write_index(folder: Path, rows: Sequence[Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write ``index.html``.

    Args:
        folder: to write to; the pairs' folders are below it.
        rows: of ``batch.csv``: pair, state, error and measures.
        found: what ``registration.json`` holds, by the pair's name; of registered pairs alone.

    Returns:
        Its path.
    """
    entries = [_entry(folder, row, found.get(row["pair"])) for row in rows]
    entries.sort(key=lambda entry: (ORDER.index(entry["level"]), entry["rank"], entry["pair"]))
    counts = [(level, sum(entry["level"] == level for entry in entries)) for level in ORDER]
    page = Template(asset("index.html")).substitute(
        title=html.escape(folder.resolve().name),
        counts=html.escape(", ".join(f"{count} {level}" for level, count in counts if count)),
        style=asset("report.css") + asset("index.css"),
        script=asset("index.js"),
        data=as_json(entries),
    )
    write_text(folder / "index.html", page)
    return folder / "index.html"


def _entry(folder: Path, row: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any]:
    """A row of the table; what is missing is None, and ``rank`` is lower the less alike the images are."""
    pair = str(row["pair"])
    if found is None:
        level = NOT_REGISTERED if row.get("error") else TO_DO
        return {"pair": pair, "level": level, "rank": 0.0, "words": str(row.get("error") or "")}
    judgement = found.get("judgement") or {"level": LOOK_HERE, "findings": []}
    findings = judgement["findings"]
    measures = ("similarity_before", "similarity_after", "dice_after", "folding_percent", "foreground_similarity")
    return {
        "pair": pair,
        "level": judgement["level"],
        "rank": found.get("foreground_similarity") or 0.0,
        "words": findings[0]["sentence"] if findings else "",
        "report": _address(folder, pair, "report.html"),
        "picture": _address(folder, pair, "thumbnail.png"),
        **{name: found.get(name) for name in measures},
    }


def _address(folder: Path, pair: str, name: str) -> str | None:
    """Where a pair's file is, from the index; None where there is none."""
    return quote(f"{pair}/{name}") if (folder / pair / name).is_file() else None
