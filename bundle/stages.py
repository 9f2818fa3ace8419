"""Show how far the registration of one pair is, and how long it still takes."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from bundle.lesions import REFILLS
from bundle.progress import RESAMPLING, WRITING, Progress, Stages, millions
from bundle.spatial import Grid
from bundle.spatial.grid import MULTIPLE
from bundle.transforms import grid_of, read_grid
from bundle.transforms.extent import check_extent
from bundle.transforms.matching import MARGIN_MM
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

__all__ = ["STAGES", "EngineProgress", "StageProgress", "expected_seconds"]

STAGES = ("reading and aligning", "network", "resampling and measuring", "writing")

# seconds of one busy core, alone or for a million voxels: their proportions count, the first stages correct the rest
ALIGNMENT, RIGID, SMALL = 10.0, 0.6, 0.1  # of all but the smallest images; share of rigid; millions of voxels
NETWORK, ON_GPU, STEP = 5.0, 0.02, 1.5
REFINING = 2.0  # of what changed in one person
MEETING, MEETING_STEPS = 9.0, 3  # of both ways halfway; steps at the least (configs/inference.json)
READING, MEASURING, INVERSE = 0.3, 2.0, 12.0


def expected_seconds(
    fixed: float, moving: float, network: float, settings: Mapping[str, Any], on_gpu: bool = False
) -> dict[str, float]:
    """Guess what the stages of a registration take.

    Args:
        fixed: voxels of the fixed image, in millions.
        moving: of the moving image.
        network: of the network's grid.
        settings: by the names of ``configs/inference.json``, with ``cascades``, and ``refilled`` for cost masks.
        on_gpu: whether the network runs there.

    Returns:
        Seconds by stage, in the order of ``STAGES``.
    """
    ways = 2 if settings.get("symmetric") else 1
    share = {"none": 0.0, "center": 0.0, "rigid": RIGID}.get(str(settings.get("affine")), 1.0)
    aligning = ways * share * ALIGNMENT * min(fixed / SMALL, 1.0)
    run = NETWORK * (settings.get("passes") or 1) * (settings.get("cascades") or 1)
    run += REFINING if settings.get("same_person") else 0.0
    steps = STEP * (settings.get("optimise") or 0)
    meeting = 0.0
    if ways == 2:
        steps = max(steps, STEP * MEETING_STEPS)
        meeting = MEETING + 2 * run + steps  # both ways once more
    running = network * (ways * run + steps + meeting) * (ON_GPU if on_gpu else 1.0)
    again = REFILLS * running if settings.get("refilled") else 0.0
    if settings.get("expected_error"):
        again += network * (ways + 2) * (run + steps) * (ON_GPU if on_gpu else 1.0)
    inverting = INVERSE * (fixed + moving) if settings.get("inverse") else 0.0
    seconds = (
        READING * (fixed + moving + network) + aligning,
        running,
        RESAMPLING * fixed + MEASURING + inverting + again,
        WRITING * fixed,
    )
    return dict(zip(STAGES, seconds))


def _ending(end: Callable[[], None]) -> Callable[[Engine, BaseException], NoReturn]:
    """Take a line away when the engine fails; ignite leaves it to those who listen to raise the error."""

    def fail(engine: Engine, error: BaseException) -> NoReturn:
        end()
        raise error

    return fail


class EngineProgress:
    """Show the progress of an engine through all of its epochs; of several processes that of the first alone.

    Among an engine's handlers it comes before MONAI's ``StatsHandler``, which raises what it hears of a failure.

    Args:
        title: what the engine does.
        unit: what an iteration is.
    """

    def __init__(self, title: str, unit: str = "step") -> None:
        self.title, self.unit = title, unit
        self.progress: Progress[Any] | None = None

    def attach(self, engine: Engine) -> None:
        """Count the iterations."""
        if int(os.environ.get("RANK", 0)) == 0:
            engine.add_event_handler(Events.EPOCH_STARTED, self._start)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)
            engine.add_event_handler(Events.COMPLETED | Events.TERMINATE, lambda _: self._end())
            engine.add_event_handler(Events.EXCEPTION_RAISED, _ending(self._end))

    def _start(self, engine: Engine) -> None:
        """Begin with the first epoch of this call: what an earlier one did is known by then."""
        if self.progress is not None:
            return
        epochs, length = engine.state.max_epochs, engine.state.epoch_length
        total = epochs * length if epochs and length else None
        self.progress = Progress(total=total, done=engine.state.iteration, title=self.title, unit=self.unit)

    def _count(self, engine: Engine) -> None:
        if self.progress is not None:
            self.progress.update()

    def _end(self) -> None:
        if self.progress is not None:
            self.progress.close()
            self.progress = None


class StageProgress:
    """Show the stages of the one pair that an evaluator registers.

    Args:
        settings: by the names of ``configs/inference.json``.
        spacing_mm: voxel size that the network works at; None for the fixed image's.
        cascades: of the network.
    """

    def __init__(self, settings: Mapping[str, Any], spacing_mm: float | None = None, cascades: int = 1) -> None:
        self.settings, self.spacing_mm = {**settings, "cascades": cascades}, spacing_mm
        self.sizes = (1.0, 1.0)
        self.stages: Stages | None = None

    def attach(self, engine: Engine) -> None:
        """Follow an iteration's events; attached before the handler that writes."""
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._run)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, lambda _: self._begin(STAGES[2]))
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda _: self._begin(STAGES[3]))
        engine.add_event_handler(Events.COMPLETED, lambda _: self._end())
        engine.add_event_handler(Events.EXCEPTION_RAISED, _ending(self._end))

    def _start(self, engine: Engine) -> None:
        """Guess by the headers of the images: what they are is found out, and said, by the reading."""
        item = engine.data_loader.dataset.data[0]
        network = 1.0
        try:
            grids = [_grid(item[role]) for role in ("fixed", "moving")]
            self.sizes = (millions(grids[0].shape), millions(grids[1].shape))
            check_extent(grids[0], self.spacing_mm)
            network = millions(_network_sides(grids[0], self.spacing_mm))
        except (KeyError, ValueError, OSError):
            pass
        self.stages = Stages("registering", STAGES[0], self._expected(engine, network))

    def _run(self, engine: Engine) -> None:
        """Guess anew by the network's own grid."""
        if self.stages is not None:
            self.settings["refilled"] = "ignored" in engine.state.batch
            self.stages.expect(self._expected(engine, millions(engine.state.batch["image"].shape[2:])))
        self._begin(STAGES[1])

    def _expected(self, engine: Engine, network: float) -> dict[str, float]:
        device = torch.device(getattr(engine.state, "device", "cpu") or "cpu")
        return expected_seconds(*self.sizes, network, self.settings, on_gpu=device.type == "cuda")

    def _begin(self, stage: str) -> None:
        if self.stages is not None:
            self.stages.begin(stage)

    def _end(self) -> None:
        if self.stages is not None:
            self.stages.close()
            self.stages = None


def _grid(volume: Any) -> Grid:
    return grid_of(volume) if isinstance(volume, torch.Tensor) else read_grid(Path(str(volume)), "image")[0]


def _network_sides(fixed: Grid, spacing_mm: float | None) -> tuple[int, ...]:
    """The sides of the network's grid where the image shows something everywhere."""
    extent = np.array(fixed.shape) * fixed.spacing_mm + 2 * MARGIN_MM
    sides = np.ceil(extent / (fixed.spacing_mm if spacing_mm is None else spacing_mm) / MULTIPLE) * MULTIPLE
    return tuple(int(side) for side in sides)
