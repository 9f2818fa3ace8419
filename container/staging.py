"""What goes into the image: the application, the bundle as its model folder, the documents."""

import json
import shutil
from pathlib import Path

__all__ = ["NAME", "ROOT", "stage_application", "stage_documents", "stage_model", "version"]

ROOT = Path(__file__).resolve().parents[1]
NAME = "pan_registration"
_LITTER = ("__pycache__", "*.pyc", ".*_cache")


def version() -> str:
    """Return the bundle's version, which is the image's too."""
    return str(json.loads((ROOT / "configs" / "metadata.json").read_text())["version"])


def stage_application(source: Path, target: Path) -> None:
    """Copy the application's folder."""
    _copy(source, target, *_LITTER)


def stage_model(target: Path) -> None:
    """Copy the bundle with the weights that the application registers with, and their terms."""
    shutil.rmtree(target, ignore_errors=True)
    for folder in ("bundle", "configs", "docs"):
        _copy(ROOT / folder, target / folder, *_LITTER)
    (target / "models").mkdir()
    shutil.copyfile(ROOT / "LICENSE", target / "LICENSE")
    models = ROOT / "models"
    description = json.loads((models / "model.json").read_text())
    others = [description[key] for key in ("one_person", "across_contrasts") if key in description]
    for weights in (models / "model.pt", *(models / name for name in others)):
        for path in (weights, weights.with_suffix(".json")):
            shutil.copyfile(path, target / "models" / path.name)
    _readable(target)


def stage_documents(target: Path, bill: Path) -> None:
    """Copy what an image must carry about itself: how to run it, its licence, its bill of materials."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    documents = [ROOT / "docs" / name for name in ("deploy.md", "safety.md", "data_license.txt")]
    for path in (ROOT / "LICENSE", *documents, bill):
        shutil.copyfile(path, target / path.name)
    _readable(target)


def _copy(source: Path, target: Path, *litter: str) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*litter), copy_function=shutil.copyfile)
    _readable(target)


def _readable(folder: Path) -> None:
    """Give the image's user, who is not the owner, the right to read, whatever the umask of the checkout was."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


if __name__ == "__main__":
    stage_model(ROOT / "build" / "map" / "models" / NAME)
