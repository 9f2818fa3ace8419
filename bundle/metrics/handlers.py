"""The measures inside an engine: pairs collected over every process of a distributed run, for the configs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from bundle.correlation import local_ncc
from bundle.metrics.folding import folding_percent
from bundle.metrics.labels import dice_per_label, mean_dice
from bundle.shapes import DDF, Labels, Volume
from ignite.metrics.metric import reinit__is_reduced
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import CumulativeIterationMetric

__all__ = [
    "DiceHandler",
    "FoldingHandler",
    "RegistrationDice",
    "RegistrationFolding",
    "RegistrationSimilarity",
    "SimilarityHandler",
    "key_metric",
]


class _PairMetric(CumulativeIterationMetric):
    """Keep a row of values for each pair, over all processes; aggregate to the mean over pairs.

    The rows are what ``get_buffer`` returns and MONAI's ``MetricsSaver`` writes, one a pair.
    """

    def aggregate(self) -> torch.Tensor:
        """Average each pair's row, then the pairs; NaN (nothing to measure) is skipped both times."""
        rows = self.get_buffer()
        if rows is None:
            raise ValueError(f"{self} has seen no pair yet.")
        return torch.nanmean(torch.nanmean(rows, 1))


class RegistrationDice(_PairMetric):
    """Collect the mean Dice of pairs; call it with warped and fixed label maps.

    Both arguments are a batch (B, 1, H, W, L) or a list of (1, H, W, L), on any device, and each pair is scored by
    ``mean_dice``: over the labels that it holds. Batches of any size give the same mean over pairs.

    Args:
        labels: labels to score, all when None.

    Returns:
        When called: the pairs' rows, (B, 1) mean Dice, or with ``labels`` (B, len(labels)) Dice of each.
    """

    def __init__(self, labels: Sequence[int] | None = None) -> None:
        super().__init__()
        self.labels = labels

    def _compute_tensor(self, y_pred: Labels, y: Labels | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None or y_pred.shape != y.shape:
            raise ValueError(f"Label maps must agree, got {tuple(y_pred.shape)} and {y if y is None else y.shape}.")
        if self.labels is None:
            rows = [[mean_dice(warped, fixed)] for warped, fixed in zip(y_pred, y)]
        else:
            scores = [dice_per_label(warped, fixed, self.labels) for warped, fixed in zip(y_pred, y)]
            rows = [[score[label] for label in self.labels] for score in scores]
        return torch.tensor(rows, device=y_pred.device)


class RegistrationFolding(_PairMetric):
    """Collect the folding of pairs, in per cent; call it with fields, (B, 3, H, W, L) or a list of (3, H, W, L).

    Returns:
        When called: ``folding_percent`` of each pair, (B, 1).
    """

    def _compute_tensor(self, y_pred: DDF, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        return torch.tensor([[folding_percent(ddf.unsqueeze(0))] for ddf in y_pred], device=y_pred.device)


class RegistrationSimilarity(_PairMetric):
    """Collect how alike pairs are; call it with predictions and fixed images.

    The predictions are a batch (B, C, H, W, L) or a list of (C, H, W, L), the warped image first; the fixed image is
    the last channel of the others, so that what the network saw (moving, fixed) will do; all in [0, 1].

    Returns:
        When called: the mean of ``local_ncc`` of each pair, (B, 1), from 0 to 1.
    """

    def _compute_tensor(self, y_pred: torch.Tensor, y: Volume | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None or y_pred.shape[2:] != y.shape[2:]:
            raise ValueError(f"Images must agree, got {tuple(y_pred.shape)} and {y if y is None else tuple(y.shape)}.")
        images = zip(y_pred, y.to(y_pred.device))  # what was filled in for a cost mask lies on the CPU
        rows = [[local_ncc(warped[None, :1], seen[None, -1:]).mean().item()] for warped, seen in images]
        return torch.tensor(rows, device=y_pred.device)


class DiceHandler(IgniteMetricHandler):
    """Report an engine's mean Dice over pairs, for ``key_val_metric`` (higher is better) or ``additional_metrics``.

    Args:
        output_transform: takes ``engine.state.output`` to (warped labels, fixed labels), for instance
            ``monai.handlers.from_engine(["warped_label", "fixed_label"])``.
        labels: labels to score, all when None. With labels, ``metric_details`` has a column for each.
        save_details: keep each pair's row in ``engine.state.metric_details``, for MONAI's ``MetricsSaver``.
    """

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = lambda x: x,
        labels: Sequence[int] | None = None,
        save_details: bool = True,
    ) -> None:
        super().__init__(RegistrationDice(labels), output_transform=output_transform, save_details=save_details)


class FoldingHandler(IgniteMetricHandler):
    """Report an engine's mean percentage of folded voxels over pairs.

    Args:
        output_transform: takes ``engine.state.output`` to the fields, for instance
            ``monai.handlers.from_engine(["ddf"])``.
        save_details: keep each pair's value in ``engine.state.metric_details``.
    """

    def __init__(self, output_transform: Callable[[Any], Any] = lambda x: x, save_details: bool = True) -> None:
        super().__init__(RegistrationFolding(), output_transform=output_transform, save_details=save_details)

    @reinit__is_reduced
    def update(self, output: DDF | Sequence[DDF]) -> None:
        """Add fields: a batch, or a sequence of batches or single fields (``from_engine`` gives either).

        Args:
            output: what ``output_transform`` returned.
        """
        for ddf in output:
            self.metric_fn(ddf if ddf.dim() == 5 else ddf.unsqueeze(0))


class SimilarityHandler(IgniteMetricHandler):
    """Report how alike an engine's pairs are after registration, by local correlation (higher is better).

    Args:
        output_transform: takes ``engine.state.output`` to (predictions, fixed images), for instance
            ``monai.handlers.from_engine(["pred", "image"])``.
        save_details: keep each pair's value in ``engine.state.metric_details``.
    """

    def __init__(self, output_transform: Callable[[Any], Any] = lambda x: x, save_details: bool = True) -> None:
        super().__init__(RegistrationSimilarity(), output_transform=output_transform, save_details=save_details)


def key_metric(pairs: Sequence[Mapping[str, Any]]) -> dict[str, IgniteMetricHandler]:
    """Choose what validation goes by: ``val_mean_dice`` where all pairs have labels, else ``val_local_ncc``.

    Evaluation has the same as one figure of all pairs. Says on the console which it is where there are no labels, or
    not on all.

    Args:
        pairs: of the validation, from ``draw_pairs``.

    Returns:
        The metric by its name, as an evaluator's ``key_val_metric``.
    """
    labelled = sum(f"{role}_label" in pair for pair in pairs for role in ("moving", "fixed"))
    if labelled == 2 * len(pairs):
        return {"val_mean_dice": DiceHandler(from_engine(["warped_label", "reference_label"]))}
    which = "some images have" if labelled else "the images have"
    print(f"validation goes by similarity (val_local_ncc), since {which} no labels")  # noqa: T201
    return {"val_local_ncc": SimilarityHandler(from_engine(["pred", "image"]))}
