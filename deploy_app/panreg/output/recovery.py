"""Results that a run published before it was killed: recognised as complete by the next run of the same.

A run announces its objects with their hashes, publishes them by one rename, and then declares them valid. Killed
between the last two, it leaves a manifest that says ``running`` beside complete results.
"""

import hashlib
import os
from pathlib import Path

from panreg.failures import Failure
from panreg.ingest.scan import scan
from panreg.ingest.stacks import find_stacks
from panreg.objects.provenance import VERSION
from panreg.output.folder_lock import lock
from panreg.output.manifest import NAME, declare_ok, describe_inputs
from panreg.output.manifest_content import ManifestContent
from panreg.output.page import PAGE, hidden, show_page
from panreg.output.publication import RESULTS, sync
from panreg.pairing.choice import choose_pair
from panreg.registration.bundle_model import BundleModel
from panreg.registration.preparation import registration_options
from panreg.settings import Settings, digest

__all__ = ["completed_earlier"]


def completed_earlier(output: Path, source: Path, models: Path, settings: Settings) -> bool:
    """Declare the results of a killed run valid if they are whole, and are what this run would make.

    Args:
        output: the output folder.
        source: the input folder.
        models: the models folder.
        settings: of this run.

    Returns:
        Whether the output is complete now; else nothing was changed.

    Raises:
        Failure: E_OUTPUT: another run is at work there.
    """
    if not (output / RESULTS).is_dir() or _announced(output) is None:
        return False
    descriptor = lock(output)
    try:
        content = _announced(output)
        if content is None or not _is_whole(output, content) or not _is_same(content, source, models, settings):
            return False
        show_page(output)
        sync(output)
        declare_ok(output, content)
        return True
    finally:
        os.close(descriptor)


def _announced(output: Path) -> ManifestContent | None:
    """Read the manifest of a run that had announced its objects and never said how it ended."""
    try:
        content = ManifestContent.model_validate_json((output / NAME).read_bytes())
    except (OSError, ValueError):  # pydantic's ValidationError is a ValueError
        return None
    return content if content.status == "running" and content.outputs else None


def _is_whole(output: Path, content: ManifestContent) -> bool:
    """Compare the files, the page hidden or not, with what was announced: each there, with its hash, and no other."""
    pages = {path: PAGE for path in (hidden(output), output / PAGE) if path.is_file()}
    names = {path: path.relative_to(output).as_posix() for path in (output / RESULTS).rglob("*") if path.is_file()}
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for path, name in (names | pages).items()}
    announced = {entry.path: entry.sha256 for entry in content.outputs}
    return found == announced | ({} if content.page is None else {content.page.path: content.page.sha256})


def _is_same(content: ManifestContent, source: Path, models: Path, settings: Settings) -> bool:
    """Tell whether this run would register the same files by the same weights, settings and version."""
    try:
        model = BundleModel(models)
        pair = choose_pair(find_stacks(scan(source, settings.limits)), settings.pair, source)
    except Failure:
        return False
    options = registration_options(settings, pair.fixed, pair.moving)
    config = digest(settings, model.device, options)
    mine = VERSION, describe_inputs(pair, settings.plain_uids), model.weights_sha256, config
    announced = content.versions.get("application"), content.inputs, content.weights_sha256, content.config_sha256
    return mine == announced
