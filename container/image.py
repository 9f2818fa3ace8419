"""Build the MAP, the container image of the application (docs/deploy.md): ``make map``.

What is slow to make is kept in ``build/map`` and made again only when what it is made of changes: the wheels, and the
root file system of the base.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from container.adaptations import BASE_PYTHON
from container.context import BASE_IMAGE, build_with_docker, write_context
from container.engines import Buildah, has_docker, make_root_file_system, name_with_docker
from container.staging import NAME, ROOT, stage_application, stage_documents, stage_model, version
from container.wheels import download, write_bill

FOLDER = ROOT / "build" / "map"
IMAGE = f"localhost/{NAME}:{version()}"


def main() -> None:
    """Stage, package and build; print what each part took."""
    options = _options()
    if sys.version_info[:2] != BASE_PYTHON:
        raise SystemExit("error: make map needs Python {}.{}, the base image's".format(*BASE_PYTHON))
    with _timed("application, model, wheels and bill of materials"):
        _stage(options.app)
    if has_docker():
        with _timed("image, by the packager and Docker"):
            built = build_with_docker(_packager_arguments(), _labels(options.source))
            name_with_docker(built, IMAGE, options.archive)
        print(f"image: {IMAGE} in Docker's store")
        return
    with _timed("context, by the packager"):
        write_context(_packager_arguments(), _labels(options.source), FOLDER / "context")
    with _timed("image, by buildah"):
        _build_with_buildah(options.archive)
    print(f"image: {IMAGE} in {FOLDER / 'store'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--app", type=Path, default=ROOT / "deploy_app", help="the application's folder")
    parser.add_argument("--source", default="", help="address of the source code, for the image's labels")
    parser.add_argument("--archive", type=Path, help="also write the image to this file, for docker load")
    return parser.parse_args()


def _stage(app: Path) -> None:
    stage_application(app, FOLDER / "app")
    stage_model(FOLDER / "models" / NAME)
    download(app / "requirements.txt", FOLDER / "wheels")
    write_bill(FOLDER / "wheels", FOLDER / "sbom.cdx.json", version())
    stage_documents(FOLDER / "docs", FOLDER / "sbom.cdx.json")


def _packager_arguments() -> list[str]:
    app = FOLDER / "app"
    return [
        *(str(app), "-c", str(app / "app.yaml"), "-t", f"{NAME}:{version()}", "--version", version()),
        *("--platform", "x86_64", "-m", str(FOLDER / "models"), "-d", str(FOLDER / "docs")),
    ]


def _labels(source: str) -> dict[str, str]:
    description = "Deformable registration of two DICOM series with the Pyramid Attention Network; research use only"
    values = {"licenses": "Apache-2.0", "revision": _revision(), "description": description, "source": source}
    return values


def _revision() -> str:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    found = subprocess.run(git, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def _build_with_buildah(archive: Path | None) -> None:
    engine, root_file_system = Buildah(), FOLDER / "base" / "rootfs.tar"
    root_file_system.parent.mkdir(exist_ok=True)
    make_root_file_system(root_file_system)
    engine.build_base(BASE_IMAGE, root_file_system)
    engine.build(IMAGE, FOLDER / "context", FOLDER / "wheels")
    engine.discard_unused()
    if archive is not None:
        engine.save(IMAGE, archive)


@contextmanager
def _timed(what: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
