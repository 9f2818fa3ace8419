"""Build what is published, and try it: ``make release``.

Under ``build/release``:

- ``pan_registration/``: the bundle as users get it, LICENSE, bundle, configs, docs and models;
- ``pan_registration_v<version>.zip`` with its ``.sha256``: the same, for ``python -m monai.bundle download``;
- ``zoo/pan_registration/``: the folder of a pull request to the Model Zoo, whose large files a release host carries;
- ``huggingface/pan_registration/``: the repository for the Hugging Face Hub, whose README.md is the model card;
- ``dist/``: wheel and source distribution for ``pip install``.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import fire
from container.staging import version

__all__ = [
    "build",
    "build_distributions",
    "pack",
    "release",
    "stage",
    "stage_for_hugging_face",
    "stage_for_zoo",
    "try_out",
]

ROOT = Path(__file__).resolve().parent
NAME = "pan_registration"
CONTENT = (
    "LICENSE",
    "bundle/**/*.py",
    "bundle/report/assets/*",
    "configs/*.json",
    "configs/peers/*.json",
    "configs/logging.conf",
    "docs/**/*.ipynb",
    "docs/**/*.csv",
    "docs/**/*.md",
    "docs/**/*.png",
    "docs/**/*.txt",
    "docs/**/*.yaml",
    "docs/**/*.sbatch",
    "models/*.json",
    "models/*.pt",
)
OF_THE_APPLICATION = ("docs/deploy.md", "docs/safety.md")
CARD = """---
license: other
license_name: apache-2.0-code-cc-by-sa-weights
license_link: docs/data_license.txt
library_name: monai
tags:
- monai
- medical
- mri
- image-registration
---
"""


def release(output_dir: str = "build/release", host: str | None = None) -> None:
    """Build all forms and follow the README of the zip in an empty folder.

    Args:
        output_dir: folder to write.
        host: URL below which the files of the bundle will lie, for the zoo's large_files.yml; by default the folder
            written here.
    """
    archive = build(Path(output_dir).absolute(), host)
    print(f"trying {archive} by the commands of its README, in an empty folder")
    try_out(archive)
    print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB, SHA-256 {_sha256(archive)}")


def build(output_dir: Path, host: str | None = None) -> Path:
    """Write every form of the release and return the path of the zip."""
    folder = output_dir / NAME
    stage(folder)
    archive = output_dir / f"{NAME}_v{version()}.zip"
    pack(folder, archive)
    stage_for_zoo(folder, output_dir / "zoo" / NAME, host or folder.as_uri())
    stage_for_hugging_face(folder, output_dir / "huggingface" / NAME)
    build_distributions(output_dir / "dist", folder)
    return archive


def stage(folder: Path) -> None:
    """Copy what belongs to the bundle.

    Raises:
        ValueError: weights that are not those their description was written for.
    """
    shutil.rmtree(folder, ignore_errors=True)
    paths = {path for pattern in CONTENT for path in ROOT.glob(pattern) if path.is_file()}
    for path in sorted(paths - {ROOT / name for name in OF_THE_APPLICATION}):
        if path.suffix == ".pt":
            _check_weights(path)
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def pack(folder: Path, archive: Path) -> None:
    """Zip a folder so that the same files give the same bytes, and write the checksum beside it."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder.parent).as_posix())  # dated 1980
            entry.external_attr = 0o644 << 16
            file.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    archive.with_name(archive.name + ".sha256").write_text(f"{_sha256(archive)}  {archive.name}\n")


def stage_for_zoo(bundle: Path, folder: Path, host: str) -> None:
    """Copy the bundle without its weights, which are over the zoo's limit of 1024 kB, and name their addresses."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("*.pt"))
    lines = ["large_files:"]
    for weights in sorted(bundle.glob("models/*.pt")):
        path = weights.relative_to(bundle).as_posix()
        lines += [f'- path: "{path}"', f'  url: "{host}/{path}"', f'  hash_val: "{_sha256(weights)}"']
        lines += ['  hash_type: "sha256"']
    (folder / "large_files.yml").write_text("\n".join(lines) + "\n")


def stage_for_hugging_face(bundle: Path, folder: Path) -> None:
    """Copy the bundle, its README as the model card with the header that the Hub reads."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bundle, folder)
    text = (bundle / "docs" / "README.md").read_text()
    (folder / "README.md").write_text(CARD + re.sub(r"\]\((?!https?://|#)([^)]+)\)", r"](docs/\1)", text))


def build_distributions(folder: Path, bundle: Path) -> None:
    """Build the wheel and the source distribution.

    Args:
        folder: to write.
        bundle: the bundle as staged; the wheel may hold no other configs and weights.

    Raises:
        ValueError: the checkout's configs or models hold files that do not belong to the bundle.
        CalledProcessError: the build fails.
    """
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = {name.removeprefix("bundle/share/") for name in file.namelist() if name.startswith("bundle/share/")}
    foreign = sorted(name for name in names if not (bundle / name).is_file())
    if foreign:
        raise ValueError(f"The wheel would hold what is not the bundle's: move {', '.join(foreign)} elsewhere.")


def try_out(archive: Path) -> None:
    """Follow the quick start of the README in a zip, word for word, in an empty folder.

    Raises:
        ValueError: the README has no quick start.
        CalledProcessError: one of its commands fails.
    """
    with zipfile.ZipFile(archive) as file:
        readme = file.read(f"{NAME}/docs/README.md").decode()
    commands = re.search(r"^## Quick start\n.*?^```bash\n(.*?)^```", readme, re.S | re.M)
    if commands is None:
        raise ValueError(f"docs/README.md in {archive} has no quick start to follow.")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"URL": archive.as_uri(), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory() as empty:
        subprocess.run(["bash", "-euxc", commands.group(1)], cwd=empty, env=environment, check=True)


def _check_weights(weights: Path) -> None:
    description = weights.with_suffix(".json")
    named = json.loads(description.read_text()).get("sha256") if description.is_file() else None
    if named != _sha256(weights):
        raise ValueError(f"{description} does not name the SHA-256 of {weights.name}: describe these weights first.")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    fire.Fire(release)
