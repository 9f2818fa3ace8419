"""What a training left: the curve of every number that it logged, and its pictures by epoch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bundle.report.parts import draw, figure, section, table
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

__all__ = ["training_sections"]

EPOCHS = 6  # whose pictures are shown
POINTS = 60  # of a curve from which a running mean is drawn over it
SMALLER_IS_BETTER = ("loss", "folding", "hd95", "assd")
NO_BEST = ("learning_rate",)


def training_sections(folder: Path) -> list[str]:
    """Make the sections of a training: curves with a table of their numbers, and pictures; none without events."""
    if not any((folder / "tensorboard").glob("events.out.tfevents.*")):
        return []
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    curves = {tag: _curve(events, tag) for tag in tags["scalars"]}
    found = []
    if curves:
        rows = [_summarise(tag, *curve) for tag, curve in curves.items()]
        drawn = [_draw_curve(tag, *curve) for tag, curve in curves.items()]
        found.append(section("Training", table(("", "steps", "first", "last", "best", "at step"), rows), *drawn))
    pictures = [picture for tag in tags["images"] for picture in _pictures(events, tag)]
    return [*found, section("Pictures by epoch", *pictures)] if pictures else found


def _curve(events: EventAccumulator, tag: str) -> tuple[Sequence[int], Sequence[float]]:
    """Steps and values; of a step that was run again after an interruption, the last."""
    values = {event.step: event.value for event in events.Scalars(tag)}
    return list(values), list(values.values())


def _best(tag: str, values: Sequence[float]) -> int:
    if np.isnan(values).all():
        return 0
    return int((np.nanargmin if any(word in tag for word in SMALLER_IS_BETTER) else np.nanargmax)(values))


def _summarise(tag: str, steps: Sequence[int], values: Sequence[float]) -> tuple[str, ...]:
    best = _best(tag, values)
    told = ("–", "–") if tag in NO_BEST else (f"{values[best]:.4g}", str(steps[best]))
    return tag, str(len(steps)), f"{values[0]:.4g}", f"{values[-1]:.4g}", *told


def _draw_curve(tag: str, steps: Sequence[int], values: Sequence[float]) -> str:
    drawing = Figure(figsize=(5.5, 3), layout="constrained")
    ax = drawing.add_subplot(xlabel="step", title=tag)
    many = len(values) >= POINTS
    ax.plot(steps, values, color="0.75" if many else "tab:blue", marker=None if many else ".", linewidth=1)
    if many:
        width = len(values) // 20
        mean = np.convolve(values, np.full(width, 1 / width), "valid")
        ax.plot(steps[width - 1 :], mean, color="tab:blue")
    words = f"{tag}: {values[0]:.4g} at step {steps[0]}, {values[-1]:.4g} at step {steps[-1]}"
    return figure(draw(drawing), words + (f"; the line is the mean of {len(values) // 20} steps" if many else ""))


def _pictures(events: EventAccumulator, tag: str) -> list[str]:
    """A few of the pictures of a tag, from the first to the last; of an epoch that was run again, the last."""
    logged = list({event.step: event for event in events.Images(tag)}.values())
    chosen = np.unique(np.linspace(0, len(logged) - 1, EPOCHS).round().astype(int))
    return [
        figure(logged[i].encoded_image_string, f"{tag}, epoch {logged[i].step}, going through the slices")
        for i in chosen
    ]
