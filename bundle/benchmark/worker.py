"""A process for each method: its memory is its own, and its crash is one row."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
from bundle.benchmark.measure import Common, Pictures, Row, measure
from bundle.benchmark.method import Method, Register
from bundle.failures import causes
from bundle.memory import prepare_allocator

__all__ = ["sentence", "worker"]


@contextmanager
def worker(method: Method, common: Common) -> Iterator[Callable[[Mapping[str, Any], Row], tuple[Row, Pictures]]]:
    """Run ``measure`` for one method in a process of its own, started when first asked, and anew after a crash."""
    running: list[tuple[Any, Connection]] = []

    def register(pair: Mapping[str, Any], alignment: Row) -> tuple[Row, Pictures]:
        if not running:
            context = get_context("spawn")  # a fork would share the threads' locks, and the memory
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, method, common), daemon=True)
            process.start()
            there.close()
            running.append((process, here))
        process, connection = running[0]
        try:
            connection.send((dict(pair), alignment))
            answer: tuple[Row, Pictures] = connection.recv()
        except (EOFError, OSError):
            process.join()
            running.clear()
            return {"error": f"the process ended with exit code {process.exitcode}: out of memory, perhaps"}, {}
        return answer

    try:
        yield register
    finally:
        for process, connection in running:
            connection.close()
            process.terminate()
            process.join()


def _serve(connection: Connection, method: Method, common: Common) -> None:
    """Answer pairs with rows until the other end hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted parent ends this process
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(common.threads)
    torch.set_num_threads(common.threads)
    prepare_allocator()  # as the workflows do
    loaded: list[Register | None] = []
    while True:
        try:
            pair, alignment = connection.recv()
        except EOFError:
            return
        try:
            if not loaded:
                loaded.append(method.load())
            answer = measure(pair, alignment, common, method, loaded[0])
        except Exception as error:  # becomes the row of this pair
            answer = {"error": sentence(error)}, {}
        connection.send(answer)


def sentence(error: BaseException) -> str:
    """Say what went wrong, from the innermost cause: MONAI wraps what a transform raises."""
    *_, innermost = causes(error, contexts=False)
    return f"{type(innermost).__name__}: {innermost}"
