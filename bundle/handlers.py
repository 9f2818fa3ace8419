"""Engine handlers: load weights, write what a registration found, tabulate many."""

import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bundle
import numpy as np
import torch
import torch.distributed as dist
from bundle.inferers import recommended
from bundle.io.files import check_file, fingerprint, named
from bundle.io.images import write_displacement, write_image
from bundle.io.itk import write_transform
from bundle.io.labels import for_file
from bundle.io.tables import write_csv
from bundle.memory import peak_memory_mb
from bundle.options import check_flags
from bundle.pairs import FILES
from bundle.plausibility import verdict
from bundle.spatial import SpatialTransform
from ignite.engine import Engine, Events
from matplotlib.image import imsave
from monai.engines.utils import IterationEvents
from monai.handlers import CheckpointLoader, EarlyStopHandler

__all__ = ["PairTable", "RegistrationSaver", "SetTrainer", "WeightsCheckpointLoader"]

Item = Mapping[str, Any]

OPTIONAL_FILES = (
    *("warped_label.nii.gz", "jacobian.nii.gz", "inverse.h5", "inverse_displacement.nii.gz"),
    "overview.png",
)


class WeightsCheckpointLoader(CheckpointLoader):
    """MONAI's ``CheckpointLoader`` for one network, with a sentence where the file does not fit it.

    Federated clients leave out loaders by a part of their name, "CheckpointLoader": hence this one.

    Args:
        load_path: weights, as ``CheckpointSaver`` writes them.
        load_dict: ``{"model": network}``.
        map_location: device.
    """

    def __init__(self, load_path: str, load_dict: dict[str, torch.nn.Module], map_location: Any = None) -> None:
        super().__init__(load_path, load_dict, map_location=map_location)
        self.network = load_dict["model"]

    def __call__(self, engine: Engine) -> None:
        """Check, then load."""
        check_weights(self.network, self.load_path)
        super().__call__(engine)


def check_weights(network: torch.nn.Module, path: str) -> None:
    """Compare the names and shapes of a weights file with a network's.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a weights file, or one of another network.
    """
    check_file(path, "weights", "do")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    except Exception as error:  # pickle, zip and torch each raise their own
        raise ValueError(f"The weights ({path}) cannot be read as a PyTorch state dict.") from error
    network = network.module if hasattr(network, "module") else network  # type: ignore[assignment]
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if shapes != expected:
        differing = sorted(n for n in shapes.keys() | expected.keys() if shapes.get(n) != expected.get(n))
        raise ValueError(
            f"The weights ({path}) belong to another network: {len(differing)} parameters differ, first "
            f"'{differing[0]}' ({shapes.get(differing[0])} in the file, {expected.get(differing[0])} in the network)."
        )


class SetTrainer:
    """Tell the validator's early stopping which trainer to stop: the one that this handler is attached to.

    A config cannot, since the trainer holds the validator; and federated clients run the trainer without ``run``.

    Args:
        handler: of the validator.
    """

    def __init__(self, handler: EarlyStopHandler) -> None:
        self.handler = handler

    def attach(self, engine: Engine) -> None:
        """Hand the trainer over."""
        self.handler.set_trainer(engine)


class RegistrationSaver:
    """Write each registration of an evaluator: images, transforms, numbers and picture, all or nothing.

    Args:
        output_dir: where to write; each pair gets ``<moving>_to_<fixed>/`` below it if ``folder_per_pair``.
        weights: path of the weights, for their SHA-256.
        folder_per_pair: False writes into ``output_dir`` itself.
        settings: what else the result depends on, noted in ``registration.json``.
    """

    def __init__(
        self, output_dir: str, weights: str, folder_per_pair: bool = True, settings: Mapping[str, Any] | None = None
    ) -> None:
        check_flags(folder_per_pair=folder_per_pair)
        self.output_dir, self.weights, self.folder_per_pair = Path(output_dir), weights, folder_per_pair
        self.settings = dict(settings or {})
        self.network_start = self.network_seconds = 0.0

    def attach(self, engine: Engine) -> None:
        """Time the network, write after the postprocessing."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._start)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._stop)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _start(self, engine: Engine) -> None:
        self.network_start = time.perf_counter()

    def _stop(self, engine: Engine) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.network_seconds = time.perf_counter() - self.network_start

    def __call__(self, engine: Engine) -> None:
        """Write every pair of the batch."""
        for item in (b | o for b, o in zip(engine.state.batch, engine.state.output)):
            folder = self.output_dir / item["name"] if self.folder_per_pair else self.output_dir
            write_registration(item, folder, self.weights, self.network_seconds, self.settings)


def write_registration(
    item: Item, folder: Path, weights: str, network_seconds: float, settings: Mapping[str, Any] | None = None
) -> None:
    """Write one registration into a temporary folder and move the files to theirs when all are there."""
    start = time.perf_counter()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".registration_", dir=folder.parent))
    try:
        with named(folder, partial), ThreadPoolExecutor() as pool:  # compression takes most of it, and frees the others
            written = [pool.submit(write, *what) for write, *what in _files(item, partial)]
            if "overview" in item:
                imsave(partial / "overview.png", item["overview"])
            for file in written:
                file.result()
        seconds = dict(item["seconds"]) | {"network": network_seconds, "write": time.perf_counter() - start}
        summary = _summary(item, seconds, weights, settings or {})
        (partial / "registration.json").write_text(json.dumps(summary, indent=4) + "\n")
        folder.mkdir(exist_ok=True)
        for name in OPTIONAL_FILES:  # of an earlier registration in the same folder
            (folder / name).unlink(missing_ok=True)
        for path in sorted(partial.iterdir()):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _files(item: Item, folder: Path) -> Iterator[tuple[Any, ...]]:
    """Yield for each file what writes it, and that function's arguments."""
    transform: SpatialTransform = item["transform"]
    grid, like = transform.fixed_grid, source_of(item["fixed"]) or None
    yield write_displacement, transform.displacement_field(), grid, folder / "displacement.nii.gz", like
    yield write_image, item["warped"].float(), grid, folder / "warped.nii.gz", like
    yield write_transform, transform, folder / "transform.h5"
    if "warped_label" in item:
        yield write_image, for_file(item["warped_label"]), grid, folder / "warped_label.nii.gz", like
    if "jacobian" in item:
        yield write_image, item["jacobian"], grid, folder / "jacobian.nii.gz", like
    if "inverse" in item:
        place = transform.moving_grid, folder / "inverse_displacement.nii.gz", source_of(item["moving"]) or None
        yield write_displacement, item["inverse_mm"], *place
        yield write_transform, item["inverse"], folder / "inverse.h5"


def _summary(item: Item, seconds: dict[str, float], weights: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what ``registration.json`` holds."""
    stages = {stage: round(seconds[stage], 3) for stage in ("read", "align", "network", "resample", "report", "write")}
    packages = ("torch", "monai", "SimpleITK", "nibabel", "numpy")
    transform = item["transform"]
    return {
        "moving": source_of(item["moving"]),
        "fixed": source_of(item["fixed"]),
        "notes": [note for note in item.get("notes", "").split("\n") if note],
        **verdict(item["quality"], recommended(weights, "limits")),
        **{name: _finite(value) for name, value in item["quality"].items()},
        "fill": item["fill"],
        "alignment_lps_mm": transform.alignment.tolist(),
        "field_grid": {"shape": transform.field_grid.shape, "spacing_mm": transform.field_grid.spacing_mm.tolist()},
        "seconds": stages | {"total": round(sum(stages.values()), 3)},
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "device": "cuda" if item["pred"].is_cuda else "cpu",
        "versions": {"pan_registration": bundle.__version__, "python": platform.python_version()}
        | {name: version(name) for name in packages},
        "weights_sha256": hashlib.sha256(Path(weights).read_bytes()).hexdigest(),
        "inputs": {key: fingerprint(path) for key, path in _inputs(item).items()},
        "settings": dict(settings),
    }


def _inputs(item: Item) -> dict[str, str]:
    """List the files that a registration was made of; volumes handed over in memory have none."""
    paths = {key: item[key] if isinstance(item[key], str) else source_of(item[key]) for key in FILES if key in item}
    return {key: path for key, path in paths.items() if path}


def source_of(volume: torch.Tensor) -> str:
    """Name the file a volume was read from; empty for one handed over in memory."""
    name = getattr(volume, "meta", {}).get("filename_or_obj", "")
    return str(name[0] if isinstance(name, list | tuple) and name else name)


def _finite(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None


class PairTable:
    """Tabulate the quality of every pair: ``pairs.csv``, a row each, and ``summary.csv``, mean and standard deviation.

    Args:
        output_dir: where to write.
    """

    def __init__(self, output_dir: str) -> None:
        self.output_dir = Path(output_dir)
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Collect after each pair, write at the end."""
        engine.add_event_handler(Events.STARTED, lambda _: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _collect(self, engine: Engine) -> None:
        for item in (b | o for b, o in zip(engine.state.batch, engine.state.output)):
            sources = {"pair": item["name"], "moving": source_of(item["moving"]), "fixed": source_of(item["fixed"])}
            self.rows.append(sources | item["quality"])

    def _write(self, engine: Engine) -> None:
        rows = self._gathered()
        if rows is None:
            return
        self.output_dir.mkdir(parents=True, exist_ok=True)
        numbers = [k for k in rows[0] if k not in ("pair", "moving", "fixed")]
        table = {k: np.array([row.get(k, np.nan) for row in rows], dtype=float) for k in numbers}
        summary = [
            {"measure": k, "mean": np.nanmean(v), "sd": np.nanstd(v), "pairs": int(np.isfinite(v).sum())}
            for k, v in table.items()
        ]
        for name, content in (("pairs.csv", rows), ("summary.csv", summary)):
            write_csv(self.output_dir / name, content)
        for row in summary:
            print(f"{row['measure']:>20}  {row['mean']:.4f} ± {row['sd']:.4f}  ({row['pairs']} pairs)")  # noqa: T201

    def _gathered(self) -> list[dict[str, Any]] | None:
        """Bring the rows of all processes to the first, without the repetitions that even out their shares."""
        if not (dist.is_available() and dist.is_initialized()):
            return self.rows
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, self.rows)
        unique = {row["pair"]: row for rows in gathered for row in rows}
        return [unique[name] for name in sorted(unique)] if dist.get_rank() == 0 else None
