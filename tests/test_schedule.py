"""What a schedule of the learning rate goes by, and what is told of each epoch."""

import pytest
import torch
from bundle.schedule import ScheduleHandler
from ignite.engine import Engine, Events
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau


def train(make, losses, **options):
    """Run an epoch for each list of losses; the rate that each ends with, and the metrics."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    steps = iter([loss for epoch in losses for loss in epoch])

    def step(*_):
        optimizer.step()
        return [{"loss": torch.tensor(next(steps))}]

    engine = Engine(step)
    engine.optimizer = optimizer
    ScheduleHandler(make(optimizer), **options).attach(engine)
    found = []
    engine.add_event_handler(
        Events.EPOCH_COMPLETED, lambda _: found.append((optimizer.param_groups[0]["lr"], dict(engine.state.metrics)))
    )
    engine.run([0] * len(losses[0]), max_epochs=len(losses))
    return [rate for rate, _ in found], [metrics for _, metrics in found]


def test_a_plateau_goes_by_the_mean_loss_of_each_epoch():
    losses = [[4.0, 2.0], [1.0, 3.0], [0.5, 3.5], [0.0, 1.0]]  # means 3, 2, 2 and 0.5; the last losses alone rise
    rates, metrics = train(lambda optimizer: ReduceLROnPlateau(optimizer, factor=0.5, patience=0), losses)
    assert rates == [1.0, 1.0, 0.5, 0.5]
    assert [one["train_mean_loss"] for one in metrics] == [3.0, 2.0, 2.0, 0.5]
    assert [one["learning_rate"] for one in metrics] == [1.0, 1.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("epoch_level", "rates", "told"), [(True, [0.5, 0.25], [1, 0.5]), (False, [0.25, 0.0625], [0.75, 0.1875])]
)
def test_other_schedules_go_by_the_number_of_epochs_or_steps(epoch_level, rates, told):
    losses = [[1.0, 1.0], [1.0, 1.0]]
    found, metrics = train(lambda optimizer: ExponentialLR(optimizer, 0.5), losses, epoch_level=epoch_level)
    assert found == rates
    assert [one["learning_rate"] for one in metrics] == told


def test_a_plateau_of_single_steps_is_refused():
    with pytest.raises(ValueError, match="leave epoch_level True"):
        train(ReduceLROnPlateau, [[1.0]], epoch_level=False)
