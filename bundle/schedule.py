"""The learning rate of a training: stepped, and told beside the mean loss of each epoch."""

from typing import Any

from ignite.engine import Engine
from ignite.metrics import Average
from monai.handlers import LrScheduleHandler, from_engine
from torch.optim.lr_scheduler import ReduceLROnPlateau

__all__ = ["ScheduleHandler"]

MEAN_LOSS = "train_mean_loss"


class ScheduleHandler(LrScheduleHandler):
    """MONAI's ``LrScheduleHandler``, which steps a plateau by the mean training loss of the epoch.

    It adds ``train_mean_loss`` and ``learning_rate`` to the trainer's metrics, each the mean over the steps of an epoch
    and over all processes, which log and TensorBoard show. MONAI takes no metrics of a trainer without a key metric.

    Args:
        lr_scheduler: of torch, or one with its ``step``.
        epoch_level: False steps after each step of the training.

    Raises:
        ValueError: a plateau that is to step after each step of the training.
    """

    def __init__(self, lr_scheduler: Any, epoch_level: bool = True) -> None:
        self.by_loss = isinstance(lr_scheduler, ReduceLROnPlateau)
        if self.by_loss and not epoch_level:
            raise ValueError("ReduceLROnPlateau goes by the mean loss of epochs: leave epoch_level True.")
        super().__init__(lr_scheduler, print_lr=False, epoch_level=epoch_level, step_transform=self._measured)

    def attach(self, engine: Engine) -> None:
        """Measure each epoch of a trainer, then step."""
        Average(from_engine("loss", first=True)).attach(engine, MEAN_LOSS)
        Average(lambda _: engine.optimizer.param_groups[0]["lr"]).attach(engine, "learning_rate")
        super().attach(engine)

    def _measured(self, engine: Engine) -> Any:
        """Hand the schedule what it goes by."""
        return engine.state.metrics[MEAN_LOSS] if self.by_loss else ()
