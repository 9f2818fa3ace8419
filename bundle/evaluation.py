"""Evaluate a list of pairs: what cannot be read costs itself alone, and what is measured is tabulated pair by pair."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from bundle.failures import PairsFailedError, bad_input
from bundle.io.tables import write_csv
from bundle.results import source_of
from ignite.engine import Engine, Events
from monai.data import DataLoader
from tqdm import tqdm

__all__ = ["PairLoader", "PairTable"]

Row = dict[str, Any]

SOURCES = ("pair", "moving", "fixed")
UNTOLD_AT_0 = ("tissue_correlation",)  # of images that show too little to tell
PARTS = "pairs.*.csv"  # what each of several processes has measured so far


class PairLoader(DataLoader):
    """Load pairs, not shuffled, and pass over those whose files cannot be used.

    Takes what MONAI's ``DataLoader`` takes. ``failures`` lists the pairs passed over: ``pair``, ``moving``, ``fixed``,
    and the ``error`` in a sentence. An error that is no fault of the files ends the iteration.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.failures: list[Row] = []

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches that can be read."""
        self.failures.clear()
        batches = super().__iter__()
        for places in list(self.batch_sampler):
            try:
                batch = next(batches)
            except Exception as error:
                sentence = bad_input(error)
                if sentence is None:
                    raise
                items = [self.dataset.data[place] for place in places]
                self.failures += [
                    {"pair": item["name"], "moving": item["moving"], "fixed": item["fixed"], "error": sentence}
                    for item in items
                ]
                tqdm.write(f"passed over {', '.join(item['name'] for item in items)}: {sentence}")
            else:
                yield batch


class PairTable:
    """Tabulate the quality of every pair: ``pairs.csv``, a row each, and ``summary.csv``, mean and standard deviation.

    What was measured of some pairs alone, overlap where there are labels, say, is empty in the rows of the others, and
    so is the order of tissues where too little is shown to tell it.
    ``pairs.csv`` grows pair by pair, so that a run that breaks off leaves what it measured, and no summary; of several
    processes each has a ``pairs.N.csv`` until the end. A pair that a ``PairLoader`` passed over has a row with its
    ``error``; the run itself goes on, and ``check`` raises in the end. Of several processes one of whose pairs none can
    be read ends at once, with all others.

    Args:
        output_dir: where to write.
        also_stale: files of other handlers there, which an earlier run may have left: removed at the start.
    """

    def __init__(self, output_dir: str, also_stale: Sequence[str] = ()) -> None:
        self.output_dir, self.also_stale = Path(output_dir), tuple(also_stale)
        self.rows: list[Row] = []
        self.failure: PairsFailedError | None = None

    def attach(self, engine: Engine) -> None:
        """Collect and write after each pair, summarise at the end."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.DATALOADER_STOP_ITERATION, self._stop)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        """Begin with no rows, and without the tables of an earlier run."""
        self.rows.clear()
        self.failure = None
        if _is_shared() and dist.get_rank() > 0:
            return
        for name in ("pairs.csv", "summary.csv", *self.also_stale, *(p.name for p in self.output_dir.glob(PARTS))):
            (self.output_dir / name).unlink(missing_ok=True)

    def _collect(self, engine: Engine) -> None:
        for item in (b | o for b, o in zip(engine.state.batch, engine.state.output)):
            sources = {"pair": item["name"], "moving": source_of(item["moving"]), "fixed": source_of(item["fixed"])}
            told = {k: v for k, v in item["quality"].items() if k not in UNTOLD_AT_0 or v}
            self.rows.append(sources | told)
        self._save(self.rows)

    def _save(self, rows: Sequence[Row]) -> None:
        self.output_dir.mkdir(parents=True, exist_ok=True)
        write_csv(self._file(), rows)

    def _file(self) -> Path:
        """Where this process tabulates until the end."""
        return self.output_dir / (PARTS.replace("*", str(dist.get_rank())) if _is_shared() else "pairs.csv")

    def _stop(self, engine: Engine) -> None:
        """End the epoch where pairs were passed over: it is shorter than the engine expects, which would begin anew."""
        failures = _failures(engine)
        if failures and not self.rows:
            self._save(failures)
            whose = f" of process {dist.get_rank()}" if _is_shared() else ""
            self.failure = PairsFailedError(f"All {len(failures)} pairs{whose} failed, {_first(failures)}.")
            if _is_shared():
                raise self.failure  # the others would wait for its share of the metrics
            engine.terminate(skip_completed=True)
        elif failures:
            engine.terminate_epoch()

    def _write(self, engine: Engine) -> None:
        rows = self._gathered(_failures(engine))
        self._file().unlink(missing_ok=True)
        if rows is None:
            return
        measured, failures = ([row for row in rows if ("error" in row) == failed] for failed in (False, True))
        numbers = [k for k in dict.fromkeys(k for row in measured for k in row) if k not in SOURCES]
        table = {k: np.array([row.get(k, np.nan) for row in measured], dtype=float) for k in numbers}
        summary = [
            {"measure": k, "mean": np.nanmean(v), "sd": np.nanstd(v), "pairs": int(np.isfinite(v).sum())}
            for k, v in table.items()
        ]
        for name, content in (("pairs.csv", measured + failures), ("summary.csv", summary)):
            write_csv(self.output_dir / name, content)
        for row in summary:
            print(f"{row['measure']:>20}  {row['mean']:.4f} ± {row['sd']:.4f}  ({row['pairs']} pairs)")  # noqa: T201
        if failures:
            self.failure = PairsFailedError(
                f"{len(failures)} of {len(rows)} pairs failed, {_first(failures)}; the others are measured. Why says "
                f"{self.output_dir / 'pairs.csv'}."
            )

    def check(self) -> None:
        """Say which pairs failed, after the engine's run, which would log a traceback beside it.

        Raises:
            PairsFailedError: some did.
        """
        if self.failure is not None:
            raise self.failure

    def _gathered(self, failures: list[Row]) -> list[Row] | None:
        """Bring the rows of all processes to the first, without the repetitions that even out their shares."""
        rows = self.rows + failures
        if not _is_shared():
            return rows
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, rows)
        unique = {row["pair"]: row for rows in gathered for row in rows}
        return [unique[name] for name in sorted(unique)] if dist.get_rank() == 0 else None


def _failures(engine: Engine) -> list[Row]:
    """Rows of the pairs that the engine's loader passed over, if it is one that does."""
    loader = engine.state.dataloader
    return list(loader.failures) if isinstance(loader, PairLoader) else []


def _first(failures: Sequence[Row]) -> str:
    return f"{failures[0]['pair']} first ({failures[0]['error'].rstrip('.')})"


def _is_shared() -> bool:
    """Tell whether several processes share the pairs."""
    return dist.is_available() and dist.is_initialized()
