"""The page of a run: the curves and pictures of a training, the tables and plots of a comparison or an evaluation."""

import html
import time
from pathlib import Path
from string import Template

import bundle
from bundle.io.files import write_text
from bundle.report.comparison import comparison_sections
from bundle.report.page import asset
from bundle.report.training import training_sections

__all__ = ["write_run_page"]

OTHERS = {  # what other commands leave, by a file of each
    "batch.csv": "a batch, whose page is index.html there: open that",
    "equal_terms.csv": "networks trained on equal terms, whose table is equal_terms.md: open that, or name a network's "
    "folder in it, pan_0.0001 say",
    "curve.csv": "curves of methods, whose figure is curve.png: open that",
    "registration.json": "one registration, whose page is report.html there: open that",
}


def write_run_page(folder: Path, output: Path | None = None) -> Path:
    """Write one page of what a training, an evaluation or ``benchmark accuracy`` left in its folder.

    Args:
        folder: ``output_dir`` of the run.
        output: file to write; ``run.html`` in the folder by default.

    Returns:
        Its path.

    Raises:
        ValueError: the folder does not exist, or holds none of them.
    """
    if not folder.is_dir():
        raise ValueError(f"The run ({folder}) is no folder: name the --output_dir of a training or a benchmark.")
    sections = training_sections(folder) + comparison_sections(folder)
    if not sections:
        other = next((said for name, said in OTHERS.items() if (folder / name).is_file()), None)
        raise ValueError(
            f"The folder ({folder}) holds {other}."
            if other
            else f"The folder ({folder}) holds no run: a page is made of the tensorboard/ of a training, or of the "
            "pairs.csv of an evaluation or of 'benchmark accuracy'; name a folder with one of them."
        )
    page = Template(asset("run.html")).substitute(
        title=html.escape(folder.resolve().name),
        style=asset("report.css") + asset("run.css"),
        sections="\n".join(sections),
        foot=html.escape(_provenance(folder)),
    )
    path = output or folder / "run.html"
    write_text(path, page)
    return path


def _provenance(folder: Path) -> str:
    return (
        f"From {folder.resolve()}, written {time.strftime('%Y-%m-%d %H:%M')} by pan-registration {bundle.__version__}."
    )
