"""Several processes that train, evaluate or register together."""

import os
import time

import torch.distributed as dist

__all__ = ["finishes_last", "leave_group", "under_torchrun"]

_LET_GO_S = 1.0


def leave_group() -> None:
    """Wait for the other processes, and leave their group so that this one can end; alone, do nothing.

    torch's ``DistributedDataParallel`` keeps gloo's threads past ``destroy_process_group`` (torch 2.13.0; see
    ``findings/torch_ddp_keeps_gloo_threads.sh``). Such a thread may still hold a tensor of the last collective, and
    Python, when it ends, ends that thread where it stands: the process aborts after its work is done. A moment of
    waiting lets it let go.
    """
    if not dist.is_initialized():
        return
    dist.barrier()
    dist.destroy_process_group()
    time.sleep(_LET_GO_S)


def under_torchrun() -> bool:
    """Say whether torchrun started this process, and ends it when one of the others fails."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def finishes_last() -> bool:
    """Say to exactly one of torchrun's processes, once all have asked, that it is the last.

    They count on torchrun's own store, so that neither a clock nor a file left by an earlier run is mistaken for one
    of them.
    """
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return store.add(f"finished/{attempt}", 1) == int(os.environ["WORLD_SIZE"])
