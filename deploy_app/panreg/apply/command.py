"""The command line of ``apply_registration.py``."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import get_args

from panreg.apply.series import apply_registration, match_series
from panreg.failures import Failure
from panreg.objects.required_attributes import missing
from panreg.output.publication import Publication, output_failures
from panreg.settings import Grid, Settings, load_settings, settings_file

__all__ = ["main"]

RESULTS = "registered"


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; its exit code."""
    options = _options(arguments)
    try:
        settings = load_settings(settings_file(environ), environ)
        if options.grid is not None:
            settings = settings.model_copy(update={"grid": options.grid})
        count = _run(options, settings)
    except Failure as failure:
        print(f"error: {failure.message} ({failure.code.value})", file=sys.stderr)  # noqa: T201
        return failure.code.exit_code
    print(f"{count} images in {options.output / RESULTS}")  # noqa: T201
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "apply_registration.py",
        description="Apply a Deformable Spatial Registration object, ours or another's, to the series that it moves.",
        epilog="The settings are the application's: app.yaml, and environment variables PANREG_…",
    )
    parser.add_argument("--registration", type=_place, required=True, help="Deformable Spatial Registration object")
    parser.add_argument("--moving", type=_place, required=True, help="folder of the series that moves")
    parser.add_argument("--output", type=_place, required=True, help=f"folder that gets {RESULTS}/")
    parser.add_argument("--fixed", type=_place, help="folder of a series whose voxels the result takes")
    parser.add_argument("--grid", choices=get_args(Grid), help="whether a sheared one is straightened")
    return parser.parse_args(arguments)


def _place(text: str) -> Path:
    """Take a path; an empty one, as of a variable that was lost, would be the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("takes a path that is not empty")
    return Path(text)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    """Apply, and let the result appear all at once; how many images it has."""
    clock = datetime.now()
    matched = match_series(options.registration, options.moving, options.fixed, settings)
    for warning in matched.warnings:
        print(warning, file=sys.stderr)  # noqa: T201
    with Publication(options.output, results=RESULTS) as publication:
        with output_failures():
            apply_registration(matched, settings, clock, publication.staging)
        return len(publication.publish([missing]))
