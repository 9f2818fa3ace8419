"""Several processes that train or evaluate together."""

import time

import torch.distributed as dist

__all__ = ["leave_group"]

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
