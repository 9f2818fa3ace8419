"""The page of a run: the curves and pictures of a training, the tables and plots of a benchmark."""

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


def write_run_page(folder: Path, output: Path | None = None) -> Path:
    """Write one page of what a training or a benchmark left in its folder.

    Args:
        folder: ``output_dir`` of the run.
        output: file to write; ``run.html`` in the folder by default.

    Returns:
        Its path.

    Raises:
        ValueError: the folder does not exist, or holds neither.
    """
    if not folder.is_dir():
        raise ValueError(f"The run ({folder}) is no folder: name the --output_dir of a training or a benchmark.")
    sections = training_sections(folder) + comparison_sections(folder)
    if not sections:
        raise ValueError(
            f"The folder ({folder}) holds no run: a training leaves tensorboard/ there, a benchmark pairs.csv."
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
