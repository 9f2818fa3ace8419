"""The command line and the container's command: ``python deploy_app -i INPUT -o OUTPUT -m MODELS``.

Paths that are not given come from HOLOSCAN_INPUT_PATH, HOLOSCAN_OUTPUT_PATH, HOLOSCAN_MODEL_PATH and
HOLOSCAN_WORKDIR, the settings from HOLOSCAN_CONFIG_PATH or the ``app.yaml`` beside this file.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import scratch  # noqa: F401  isort: skip - before any library that caches
import cuda_runtime  # noqa: F401  isort: skip - before anything imports MONAI
from app import RegistrationApp
from attributes import discreet
from failures import Code, Failure
from job import Job
from manifest import Manifest
from monai.deploy.core import AppContext, Application
from publication import Publication, output_failures
from settings import load_settings

SETTINGS = Path(__file__).with_name("app.yaml")


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run once; the process's exit code."""
    # the SDK's INFO log prints paths and identifiers
    quiet = list(arguments) if {"-l", "--log-level"} & set(arguments) else [*arguments, "-l", "WARN"]
    try:
        with output_failures():  # the SDK makes the output folder
            context = Application.init_app_context(quiet)
    except Failure as failure:
        return _refuse(failure, None)
    with discreet():
        return run(context, environ, datetime.now())


def run(context: AppContext, environ: Mapping[str, str], clock: datetime) -> int:
    """Register what the context's folders hold.

    Args:
        context: input, output, work and model folders.
        environ: with the settings, PANREG_….
        clock: when the run began; it is written into every object.
    """
    manifest = None
    try:
        output = Path(context.output_path)
        with Publication(output, Path(context.workdir) if context.workdir else None) as publication:
            manifest = Manifest(output)
            settings = load_settings(Path(environ.get("HOLOSCAN_CONFIG_PATH", SETTINGS)), environ)
            job = Job(Path(context.input_path), Path(context.model_path), settings, publication, manifest, clock)
            RegistrationApp(job).run()
            if job.failure is not None:
                raise job.failure
    except Exception as error:
        return _refuse(error, manifest)
    return 0


def _refuse(error: Exception, manifest: Manifest | None) -> int:
    """Tell the manifest and the log why there is no result."""
    code, message = (error.code, error.message) if isinstance(error, Failure) else (Code.E_INTERNAL, "")
    if not message:
        message = f"Something unforeseen went wrong ({type(error).__name__})."
    logging.getLogger("panreg").error("%s: %s", code.value, message)
    if manifest is not None:
        try:
            code = manifest.fail(error)
        except Failure as failure:  # the output has gone, too
            code = failure.code
    return code.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv, os.environ))
