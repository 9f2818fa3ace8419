"""Make a page of a run."""

from pathlib import Path

from bundle.report.run import write_run_page

__all__ = ["report"]


def report(run: str, output: str | None = None) -> str:
    """Write one page of a training (curves, pictures), or of benchmark accuracy or an evaluation (tables, spread).

    Args:
        run: the --output_dir of the training, of benchmark accuracy or of the evaluation.
        output: file to write; run.html in that folder by default.

    Returns:
        Path of the page.
    """
    path = write_run_page(Path(str(run)), Path(str(output)) if output else None)
    print(f"page: {path}")
    return str(path)
