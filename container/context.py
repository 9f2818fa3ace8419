"""The SDK's packager, held before (or, with Docker, while) it builds: its context adapted, its image labelled."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any
from unittest import mock

from container.adaptations import DEBIAN, ENTRY_POINT, EVERYWHERE, Edit, apply, labels
from holoscan_cli.__main__ import main as packager
from holoscan_cli.packager.container_builder import BuilderBase
from holoscan_cli.packager.parameters import PlatformBuildResults

__all__ = ["BASE_IMAGE", "build_with_docker", "write_context"]

BASE_IMAGE = "localhost/map-base:bookworm"


def write_context(arguments: Sequence[str], label_values: Mapping[str, str], folder: Path) -> None:
    """Write the build context for a Debian base, with the packager's own Dockerfile beside the adapted one.

    Needs neither Docker nor a network; the same application gives the same files.
    """

    def keep(builder: Any, dockerfile: str, platform: Any) -> Any:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(builder._temp_dir, folder)
        shutil.copyfile(folder / "Dockerfile", folder / "Dockerfile.stock")
        _adapt(folder, (*DEBIAN, *EVERYWHERE, labels(label_values)))
        result = PlatformBuildResults(platform)
        result.succeeded, result.tarball_filename = True, str(folder)
        return result

    manifest = folder.parent / "artifacts.json"
    manifest.write_text(json.dumps(_artifacts()))
    _package([*arguments, "--source", str(manifest)], keep)


def build_with_docker(arguments: Sequence[str], label_values: Mapping[str, str]) -> str:
    """Let the packager build its image on its own base, with the entry point and the labels of ours.

    Returns:
        The name that the packager gave the image: ours with the platform's in it.

    Raises:
        SystemExit: the packager's, where no image was built.
    """
    build, names = BuilderBase._build_internal, []

    def adapt_and_build(builder: Any, dockerfile: str, platform: Any) -> Any:
        _adapt(Path(builder._temp_dir), (*EVERYWHERE, labels(label_values)))
        names.append(str(platform.tag))
        return build(builder, dockerfile, platform)

    _package(arguments, adapt_and_build)
    return names[0]


def _package(arguments: Sequence[str], build: Callable[[Any, str, Any], Any]) -> None:
    command = ["monai-deploy", "package", *arguments]  # the packager takes the kind of SDK from the command's name
    with mock.patch.object(BuilderBase, "_build_internal", build), mock.patch.object(sys, "argv", command):
        packager()


def _adapt(folder: Path, edits: Sequence[Edit]) -> None:
    for name, changes in (("Dockerfile", edits), ("tools", ENTRY_POINT)):
        path = folder / name
        path.write_text(apply(path.read_text(), changes))


def _artifacts() -> dict[str, Any]:
    """Say in the packager's own format where its base image is, which it would otherwise fetch from the network."""
    release = installed("holoscan-cu13")
    platforms = ("igpu", "dgpu", "cpu")
    images = {"base-images": dict.fromkeys(platforms, BASE_IMAGE), "build-images": {name: {} for name in platforms}}
    versions = {"wheel-version": release, "debian-version": release}
    return {release: {"holoscan": versions | images, "health-probes": {"x86_64": "", "aarch64": ""}}}
