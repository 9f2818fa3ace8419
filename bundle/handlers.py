"""Engine handlers: load weights, write what a registration found, tabulate many."""

import math
import os
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from bundle.failures import OutcomeError
from bundle.fields import identity_grid
from bundle.io.tables import read_csv, write_csv
from bundle.memory import peak_memory_mb
from bundle.options import check_flags
from bundle.results import anonymous_page, bounds_of, write_registration
from bundle.shapes import DDF
from bundle.spatial.resampling import is_inside
from bundle.weights import WeightsChoice, check_weights
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.handlers import CheckpointLoader, EarlyStopHandler, ValidationHandler

__all__ = [
    "DivergenceHandler",
    "EpochTable",
    "LastValidationHandler",
    "PageMaker",
    "RegistrationSaver",
    "SetTrainer",
    "WeightsCheckpointLoader",
]

ON_NETWORK_GRID = "image", "pred", "ddf"  # keys that nothing needs once a registration has been measured and drawn

LEAST_WITHIN = 0.1  # share of the voxels; trained weights have 0.9, those that have diverged none


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


class LastValidationHandler(ValidationHandler):
    """MONAI's ``ValidationHandler``, which validates after the last epoch, too: a training always leaves weights."""

    def attach(self, engine: Engine) -> None:
        """Validate every so many epochs, and once more in the end."""
        super().attach(engine)
        if self.epoch_level:
            engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=self._is_left_out), self)

    def _is_left_out(self, engine: Engine, epoch: int) -> bool:
        """Tell the last epoch where it is none of those that are validated."""
        return epoch == engine.state.max_epochs and epoch % self.interval != 0


class DivergenceHandler:
    """End a training whose weights have diverged though its numbers are finite, before they count as its best.

    Then the fields of all validated pairs pull nearly every voxel from beyond the moving image, so that nothing of it
    is left: displacements that grow without bound cannot do otherwise, and no field that registers does.
    """

    def __init__(self) -> None:
        self.within = 0.0

    def attach(self, engine: Engine) -> None:
        """Look at each field of a validator, and judge them before the validation ends."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _begin(self, engine: Engine) -> None:
        self.within = 0.0

    def __call__(self, engine: Engine) -> None:
        """Note how much the fields of a batch, ``ddf`` (3, H, W, L), pull from within the moving image.

        Raises:
            OutcomeError: it was the last batch, and of no pair was it a tenth of the voxels.
        """
        self.within = max(self.within, *(_share_within(item["ddf"][None]) for item in engine.state.output))
        if engine.state.iteration % engine.state.epoch_length == 0 and self.within < LEAST_WITHIN:
            raise OutcomeError(
                f"The training has diverged: the fields that it finds move {1 - self.within:.0%} of each image of its "
                "validation and more out of view. Begin anew with a lower --learning_rate and another --output_dir."
            )


def _share_within(ddf: DDF) -> float:
    """Measure how many voxels a field, (1, 3, H, W, L), pulls from within the moving image: a share."""
    ddf = ddf.as_subclass(torch.Tensor)
    return float(is_inside((identity_grid(ddf) + ddf)[0].movedim(0, -1), ddf.shape[2:]).float().mean())


class RegistrationSaver:
    """Write each registration of an evaluator: images, transforms, numbers and picture, all or nothing.

    Args:
        output_dir: where to write; each pair gets ``<moving>_to_<fixed>/`` below it if ``folder_per_pair``.
        weights: path of the weights, for their SHA-256.
        folder_per_pair: False writes into ``output_dir`` itself.
        settings: what else the result depends on, noted in ``registration.json``.
        thresholds: ``failed`` and ``look_here``, each least and greatest value by measure, None for no bound: what the
            verdict and the judgement go by. ``failed`` are added to ``bundle.plausibility.LIMITS``; ``bounds_of`` of
            ``bundle.results`` says what the weights' description adds.
        weights_choice: which weights a pair was registered with; None for ``weights``.

    Raises:
        ValueError: a threshold that is none.
    """

    def __init__(
        self,
        output_dir: str,
        weights: str,
        folder_per_pair: bool = True,
        settings: Mapping[str, Any] | None = None,
        thresholds: Mapping[str, Mapping[str, Sequence[float | None]]] | None = None,
        weights_choice: WeightsChoice | None = None,
    ) -> None:
        check_flags(folder_per_pair=folder_per_pair)
        self.output_dir, self.weights, self.folder_per_pair = Path(output_dir), weights, folder_per_pair
        self.settings, self.weights_choice = dict(settings or {}), weights_choice
        self.thresholds = thresholds or {}
        bounds_of(weights, self.thresholds, weights_choice)  # which says now what is wrong with them
        self.network_start = self.network_seconds = 0.0

    def attach(self, engine: Engine) -> None:
        """Time the network, write after the postprocessing."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._start)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._stop)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _start(self, engine: Engine) -> None:
        self.network_start = time.perf_counter()

    def _stop(self, engine: Engine) -> None:
        _wait_for(engine)
        self.network_seconds = time.perf_counter() - self.network_start

    def __call__(self, engine: Engine) -> None:
        """Write every pair of the batch; what lies on the network's grid is let go first, to save its memory."""
        for batch, output in zip(engine.state.batch, engine.state.output):
            for source, key in product((batch, output), ON_NETWORK_GRID):
                source.pop(key, None)
            item = batch | output
            folder = self.output_dir / item["name"] if self.folder_per_pair else self.output_dir
            weights, settings = _weights_and_settings(item, self.weights, self.settings, self.weights_choice)
            bounds = bounds_of(weights, self.thresholds, self.weights_choice)
            write_registration(item, folder, weights, self.network_seconds, settings, bounds)


def _wait_for(engine: Engine) -> None:
    """Wait until the engine's device has done what it was given; a GPU that it does not run on is left alone."""
    if engine.state.device.type == "cuda":
        torch.cuda.synchronize(engine.state.device)


def _weights_and_settings(
    item: Mapping[str, Any], weights: str, settings: Mapping[str, Any], weights_choice: WeightsChoice | None
) -> tuple[str, Mapping[str, Any]]:
    """Name the weights that a pair was registered with, and the settings."""
    if weights_choice is None:
        return weights, settings
    return weights_choice.weights_for(item["quality"]), weights_choice.settings_for(item["quality"], settings)


class PageMaker:
    """Make the page of each registration as text, for an application that hands it on: ``page`` of the output.

    It names no file and repeats nothing of a header: see ``bundle.results.anonymous_page``.

    Args:
        weights: path of the weights.
        settings: what else the result depends on, shown at the foot.
        thresholds: as for ``RegistrationSaver``.
        weights_choice: likewise.
        notes: sentences to show beside the numbers.
    """

    def __init__(
        self,
        weights: str,
        settings: Mapping[str, Any] | None = None,
        thresholds: Mapping[str, Mapping[str, Sequence[float | None]]] | None = None,
        weights_choice: WeightsChoice | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.weights, self.settings, self.notes = weights, dict(settings or {}), tuple(notes)
        self.thresholds, self.weights_choice = thresholds or {}, weights_choice
        bounds_of(weights, self.thresholds, weights_choice)  # which says now what is wrong with them

    def attach(self, engine: Engine) -> None:
        """Make it after the postprocessing."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Make a page for every pair of the batch."""
        for batch, output in zip(engine.state.batch, engine.state.output):
            item = batch | output
            weights, settings = _weights_and_settings(item, self.weights, self.settings, self.weights_choice)
            bounds = bounds_of(weights, self.thresholds, self.weights_choice)
            output["page"] = anonymous_page(item, weights, settings, bounds, self.notes)


class EpochTable:
    """Tabulate what each epoch of a training cost and reached: ``epochs.csv``, a row each, whoever resumes it.

    Of several processes the first writes, what it found itself.

    ``steps`` (so far), ``seconds`` (of the steps alone), ``validation`` (its key metric, NaN where none was due),
    ``peak_memory_mb`` (of this process so far; on a GPU of the tensors there) and ``parameters`` (of the network).

    Args:
        output_dir: where to write.
        validator: whose key metric is noted.
    """

    def __init__(self, output_dir: str, validator: Engine) -> None:
        self.path, self.validator = Path(output_dir) / "epochs.csv", validator
        self.seconds = self.start = 0.0

    def attach(self, engine: Engine) -> None:
        """Time each step, write after each epoch: after what was attached before, the validation above all."""
        if int(os.environ.get("RANK", 0)) > 0:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._stop)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _begin(self, engine: Engine) -> None:
        self.seconds = 0.0

    def _start(self, engine: Engine) -> None:
        self.start = time.perf_counter()

    def _stop(self, engine: Engine) -> None:
        _wait_for(engine)
        self.seconds += time.perf_counter() - self.start

    def _score_of(self, epoch: int) -> float:
        """Look up what the validation of this epoch found; NaN where it had none."""
        state = self.validator.state
        return state.metrics[state.key_metric_name] if state.epoch == epoch else math.nan

    def _write(self, engine: Engine) -> None:
        device = engine.state.device
        on_gpu = device.type == "cuda"
        row = {
            "epoch": engine.state.epoch,
            "steps": engine.state.iteration,
            "seconds": self.seconds,
            "validation": self._score_of(engine.state.epoch),
            "peak_memory_mb": torch.cuda.max_memory_allocated(device) / 1e6 if on_gpu else peak_memory_mb(),
            "parameters": sum(p.numel() for p in engine.network.parameters()),
        }
        before = read_csv(self.path) if self.path.is_file() else []
        kept = [
            one for one in before if int(one["epoch"]) < engine.state.epoch
        ]  # an epoch that is done again counts once
        write_csv(self.path, [*kept, row])
