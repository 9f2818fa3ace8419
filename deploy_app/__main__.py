"""The command line and the container's command: ``python deploy_app -i INPUT -o OUTPUT -m MODELS``.

Paths that are not given come from HOLOSCAN_INPUT_PATH, HOLOSCAN_OUTPUT_PATH, HOLOSCAN_MODEL_PATH and
HOLOSCAN_WORKDIR, the settings from HOLOSCAN_CONFIG_PATH or the ``app.yaml`` beside this file.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from multiprocessing import active_children
from pathlib import Path
from signal import Signals

from panreg.runtime import termination  # isort: skip - before any library that starts threads
from panreg.runtime import scratch  # noqa: F401  isort: skip - before any library that caches
from panreg.runtime import cuda_runtime  # noqa: F401  isort: skip - before anything imports MONAI
from monai.deploy.core import AppContext, Application
from panreg.dicom.attributes import pydicom_silenced
from panreg.failures import Code, Failure, as_failure
from panreg.operators.app import register
from panreg.operators.job import Job
from panreg.output.manifest import Manifest
from panreg.output.publication import RESULTS, Publication, output_failures
from panreg.output.recovery import completed_earlier
from panreg.runtime.command_line import look_at
from panreg.settings import Settings, load_settings, settings_file


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run once; the process's exit code."""
    logging.getLogger("monai.deploy.core.models").setLevel(logging.ERROR)  # a bundle is no repository of its models
    # the SDK's INFO log prints paths and identifiers
    quiet = list(arguments) if {"-l", "--log-level"} & set(arguments) else [*arguments, "-l", "WARN"]
    clock = datetime.now()
    output, fault = look_at(arguments, environ)
    if fault is not None:
        return _refuse(fault, None) if output is None else _refuse_in(output, fault, clock)
    try:
        with output_failures():  # the SDK makes the output folder
            context = Application.init_app_context(quiet)
    except Failure as failure:
        return _refuse(failure, None)
    with pydicom_silenced():
        return run(context, environ, clock)


def run(context: AppContext, environ: Mapping[str, str], clock: datetime) -> int:
    """Register what the context's folders hold.

    Args:
        context: input, output, work and model folders.
        environ: with the settings, PANREG_….
        clock: when the run began; it is written into every object.
    """
    manifest = None
    output, source, models = Path(context.output_path), Path(context.input_path), Path(context.model_path)
    try:
        if (output / RESULTS).is_dir() and completed_earlier(output, source, models, _settings(environ)):
            logging.getLogger("panreg").warning("A run that was killed had published its results: they are complete.")
            return 0
        with Publication(output, Path(context.workdir) if context.workdir else None) as publication:
            manifest = Manifest(output, clock)
            job = Job(source, models, _settings(environ), publication, manifest, clock)
            with termination.listening(lambda asked: _terminate(job, asked)):
                register(job)
    except Exception as error:
        return _refuse(error, manifest)
    return 0


def _terminate(job: Job, asked: Signals) -> None:
    """Leave no results behind, unless they are complete: then the run ends by itself in a moment."""
    with job.publication.abandoned() as is_abandoned:
        if is_abandoned:
            sentence = f"The run was asked to end ({asked.name}) before it was done: start it again."
            _refuse(Failure(Code.E_TERMINATED, sentence), job.manifest)
            for child in active_children():
                child.kill()
            job.publication.withdraw()  # what these have still written
            sys.stderr.flush()
            os._exit(termination.exit_code(asked))  # other threads are at work, and none of them could be asked to stop


def _settings(environ: Mapping[str, str]) -> Settings:
    return load_settings(settings_file(environ), environ)


def _refuse_in(output: Path, fault: Failure, clock: datetime) -> int:
    """Leave a manifest that says why nothing was done; where none can be left the log and the exit code say it."""
    manifest = None
    try:
        with Publication(output):
            manifest = Manifest(output, clock)
            raise fault
    except Failure as error:
        if error is not fault:
            logging.getLogger("panreg").warning("No manifest is written: %s", error.message)
    return _refuse(fault, manifest)


def _refuse(error: Exception, manifest: Manifest | None) -> int:
    """Write to the manifest and the log why there is no result."""
    failure = as_failure(error)
    code = failure.code
    logging.getLogger("panreg").error("%s: %s", code.value, failure.message)
    if manifest is not None:
        try:
            code = manifest.fail(error)
        except Failure as gone:  # the output has gone, too
            code = gone.code
    return code.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv, os.environ))
