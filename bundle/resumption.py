"""Trainings that go on: what is kept after each epoch, what a call that goes on shares with it, and what each draws."""

import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from bundle.failures import OutcomeError
from bundle.io.files import check_file, in_place
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint
from monai.data.utils import set_rnd
from monai.handlers import EarlyStopHandler
from monai.utils import set_determinism
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

__all__ = ["EarlyStop", "EpochSeed", "Resumption", "check_resumed", "images_of", "last_kept"]

NAME = "resume_checkpoint_epoch="
BEST = ("best_metric", "best_metric_epoch")  # what MONAI's validators know of it
UNSCORED = {
    "val_mean_dice": "all label maps hold zeros alone: label some, or list its images without, to go by similarity",
    "val_local_ncc": "the training has diverged: begin again at a lower --learning_rate",
}
OTHERWISE = "or another --output_dir"
EARLIER = "whose names have"  # the images of a training that an earlier version began
SAMPLE = 4096  # bytes of a file that are read to tell it


class EpochSeed:
    """Seed each epoch by its number, so that a training that goes on draws what it would have drawn without a break.

    An epoch is a pass of its own through the data: one of fewer steps than there are pairs takes as many at random.

    Args:
        seed: of the training, from 0 up; each process adds its rank. None leaves all draws to chance.
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Seed before an epoch's first batch is asked for."""
        if self.seed is not None:
            engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed torch, numpy, the data set and the sampler, and begin the pass."""
        loader, epoch = engine.data_loader, engine.state.epoch
        seed = int(np.random.SeedSequence([self.seed, epoch, _rank()]).generate_state(1)[0])
        set_determinism(seed)
        set_rnd(loader.dataset, seed)
        if hasattr(loader.sampler, "set_epoch"):  # a sampler of several processes, which all draw one order
            loader.sampler.set_epoch(epoch)
        engine.set_data(loader)


class EarlyStop(EarlyStopHandler):
    """MONAI's ``EarlyStopHandler``, whose patience a training that goes on has used up as far as it had before.

    The validator goes on from the best score it had, too, and calls no lower one the best. One that scores nothing
    (NaN) ends the training, which would keep the first weights for the best ones.
    """

    validator: Engine

    def attach(self, engine: Engine) -> None:
        """Count the validations of an engine."""
        self.validator = engine
        super().attach(engine)

    def __call__(self, engine: Engine) -> None:
        """Count a validation.

        Raises:
            OutcomeError: it has no score.
        """
        if math.isnan(self.score_function(engine)):
            name = getattr(engine.state, "key_metric_name", "")
            raise OutcomeError(f"The validation has no score, as {UNSCORED.get(name, f'{name} is no number')}.")
        super().__call__(engine)

    def state_dict(self) -> dict[str, Any]:
        """Tell the best score, and how many validations have come since."""
        best = {name: getattr(self.validator.state, name) for name in BEST if hasattr(self.validator.state, name)}
        return dict(self._handler.state_dict()) | best

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Count on from there; a training that had been stopped is stopped again."""
        self._handler.load_state_dict({name: value for name, value in state.items() if name not in BEST})
        for name in state.keys() & set(BEST):
            setattr(self.validator.state, name, state[name])
        if self._handler.counter >= self.patience:
            if _rank() == 0:
                print(f"No better for {self._handler.counter} validations: --patience takes more")  # noqa: T201
            self._handler.trainer.terminate()


class Resumption:
    """Keep what a training needs to go on, after each epoch, and go on from it as if there had been no break.

    The learning rate is what this call's schedule has for the epoch: with more epochs than the earlier call asked for
    it is that of a training which asked for as many at once, from there on.

    Args:
        state: what has a ``state_dict``, by name: ``trainer``, ``network``, ``optimizer``, ``lr_scheduler`` and others.
        settings: by option, what a training has to its end; for ``check_resumed``.
        folder: for ``resume_checkpoint_epoch=N.pt``, which takes the place of the one of the epoch before.
        path: such a file to go on from; empty for none.
    """

    def __init__(self, state: Mapping[str, Any], settings: Mapping[str, Any], folder: str, path: str = "") -> None:
        self.state, self.settings, self.folder, self.path = dict(state), _plain(settings), Path(folder), path

    def attach(self, engine: Engine) -> None:
        """Load before the first epoch, keep after each: after what was attached before, the validation above all."""
        if self.path:
            engine.add_event_handler(Events.STARTED, self._load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._keep)

    def _keep(self, engine: Engine) -> None:
        """Write the file, as a whole, and remove the earlier ones."""
        if _rank() > 0:
            return
        path = self.folder / f"{NAME}{engine.state.epoch}.pt"
        states = {name: _alone(one).state_dict() for name, one in self.state.items()}
        if _scaler(engine) is not None:
            states["scaler"] = _scaler(engine).state_dict()
        with in_place(path) as partial:
            torch.save(states | {"settings": self.settings}, partial)
        for earlier in set(self.folder.glob(f"{NAME}*.pt")) - {path}:
            earlier.unlink()

    def _load(self, engine: Engine) -> None:
        """Restore all but the schedule, which is brought to its place.

        Raises:
            OutcomeError: the file is of another network, of other configs or of other data.
            ValueError: it cannot be read.
        """
        found = _read(self.path)
        max_epochs, length = engine.state.max_epochs, engine.state.epoch_length
        steps = found["trainer"]["epoch_length"]
        if steps != length:
            raise OutcomeError(
                f"An epoch of the training in {self.path} has {steps} steps, and one of this call {length}: give the "
                f"same images and number of processes, {OTHERWISE}."
            )
        optimizer, scheduler = self.state["optimizer"], self.state["lr_scheduler"]
        start = [{key: group[key] for key in ("lr", "initial_lr") if key in group} for group in optimizer.param_groups]
        try:
            others = {name: one for name, one in self.state.items() if one is not scheduler}
            Checkpoint.load_objects(others, found)
        except (KeyError, RuntimeError, ValueError) as error:
            raise OutcomeError(
                f"{self.path} is of a training of another network, or by other configs: give those, {OTHERWISE}."
            ) from error
        engine.state.max_epochs = max_epochs
        if _scaler(engine) is not None and "scaler" in found:  # neither call need be by mixed precision
            _scaler(engine).load_state_dict(found["scaler"])
        for one in self.state.values():
            if isinstance(one, Checkpoint):
                _forget_missing(one)
        if isinstance(scheduler, ReduceLROnPlateau):  # goes by what was measured, not by the number of steps
            scheduler.load_state_dict(found["lr_scheduler"])
            return
        for group, rates in zip(optimizer.param_groups, start, strict=True):
            group.update(rates)
        _advance(scheduler, found["lr_scheduler"]["last_epoch"])


def images_of(training: Sequence[Mapping[str, Any]], validation: Sequence[Mapping[str, Any]]) -> str:
    """Name the images of a training and of its validation by what they hold and their place in the data set's folder.

    The folder itself may be another one, the scratch folder of a job, say.

    Args:
        training: items of ``open_dataset``.
        validation: likewise.
    """
    folders = list(dict.fromkeys(item.get("dataset") for split in (training, validation) for item in split))
    found = [
        [
            (folders.index(i.get("dataset")), sorted((k, *_told(v, i)) for k, v in i.items() if k != "dataset"))
            for i in split
        ]
        for split in (training, validation)
    ]
    digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()
    return f"{len(training)} and {len(validation)} whose names and contents have the SHA-256 {digest[:16]}…"


def _told(file: Any, item: Mapping[str, Any]) -> tuple[str, str]:
    """Tell a file by its place in its data set's folder, beyond which its name alone counts, and by a little of it.

    That is its size, and what stands at its start, in its middle and at its end.
    """
    path, folder = Path(str(file)), Path(str(item.get("dataset", ""))).absolute()
    place = str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name
    if not path.is_file():
        return place, ""
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as opened:
        for start in (0, size // 2, size - SAMPLE):
            opened.seek(max(start, 0))
            digest.update(opened.read(SAMPLE))
    return place, f"{size} {digest.hexdigest()}"


def last_kept(folder: str) -> str:
    """Find the file that a training in a folder goes on from: that of the last epoch; empty if there is none."""
    found = {int(path.stem.removeprefix(NAME)): str(path) for path in Path(folder).glob(f"{NAME}*.pt")}
    return found[max(found)] if found else ""


def check_resumed(path: str, settings: Mapping[str, Any], epochs: int) -> None:
    """Refuse other settings than a training began with, or an epoch that it has passed; tell a whole training.

    Args:
        path: file of ``Resumption``; empty passes.
        settings: by option.
        epochs: of the whole training.

    Raises:
        OutcomeError: a setting differs, or the training has more epochs.
        ValueError: the file is none of ``Resumption``.
    """
    if not path:
        return
    found = _read(path)
    before, now = found["settings"], _plain(settings)
    differing = [
        f"{name} (was {before.get(name)}, now {now.get(name)})"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if differing:
        images = " (an earlier version told images otherwise: go on with that one)"
        raise OutcomeError(
            f"{path} is of a training with another {', '.join(differing)}: a training goes on with the settings that "
            f"it began with; give these{images if EARLIER in str(before.get('images')) else ''}, {OTHERWISE}."
        )
    done = found["trainer"]["iteration"] // found["trainer"]["epoch_length"]
    if done > epochs:
        raise OutcomeError(
            f"{path} is of a training of {done} epochs, more than the {epochs} asked for: give --epochs {done} or "
            f"more, {OTHERWISE}."
        )
    if done == epochs and _rank() == 0:
        print(f"All {done} epochs of the training in {Path(path).parent} are done: --epochs takes more")  # noqa: T201


def _read(path: str) -> dict[str, Any]:
    check_file(path, "state of a training")
    try:
        found = dict(torch.load(path, map_location="cpu", weights_only=True))
        if {"settings", "trainer", "lr_scheduler"} <= found.keys():
            return found
    except Exception as error:  # pickle, zip and torch each raise their own
        raise ValueError(f"{path} cannot be read as the state of a training: remove it, {OTHERWISE}.") from error
    raise ValueError(f"{path} is not a state of a training that this version can go on from: remove it, {OTHERWISE}.")


def _advance(scheduler: LRScheduler, steps: int) -> None:
    """Bring a schedule that begins to where it is after so many steps, by the same sums."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the optimizer took its steps in another process
        for _ in range(steps):
            scheduler.step()


def _forget_missing(saver: Checkpoint) -> None:
    """Have a saver forget files that are gone, a user's weights moved elsewhere say: it would fail to replace them."""
    handler = saver.save_handler
    saver._saved = [item for item in saver._saved if (handler.dirname / (handler.filename or item.filename)).is_file()]


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Bring settings to what a file gives back."""
    return dict(json.loads(json.dumps(dict(settings), default=str)))


def _scaler(engine: Engine) -> Any:
    """Find what scales the loss of a trainer in mixed precision; None in another."""
    return getattr(engine, "scaler", None)


def _alone(one: Any) -> Any:
    return one.module if isinstance(one, torch.nn.parallel.DistributedDataParallel) else one


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
