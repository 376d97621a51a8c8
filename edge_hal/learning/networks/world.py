"""The processes of one training: those that `torchrun --nproc-per-node N -m edge_hal train ...` starts, on one machine
or on several. torch is imported only where there are several processes.

Each process (rank) holds the whole network and computes a share of each batch. The first one alone writes files and
prints. All of them read the videos and the run directory, so several machines need a folder that all of them see.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from edge_hal.errors import EdgeHalError
from edge_hal.files import CONTINUE

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""torchrun sets them."""
STEP_TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others within a step, before it ends."""
WORK_TIMEOUT = timedelta(days=7)
"""How long it waits for work that the first one does alone, such as the alignment. The end of a process is noticed at
once all the same."""


@dataclass(frozen=True)
class World:
    """Attributes:
    rank, size: the number of this process, from 0, and how many there are.
    local_size: how many of them are on this machine.
    steps: the group of processes for sums within a step. waits: the same processes with the longer timeout.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    steps: Any = None
    waits: Any = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def from_first(self, compute: Callable[[], Result]) -> Result:
        """What `compute` gives in the first process; it runs only there, and the others wait. The result is pickled."""
        if self.size == 1:
            return compute()
        import torch.distributed as dist

        box = [compute() if self.first else None]
        dist.broadcast_object_list(box, src=0, group=self.waits)
        result: Result = box[0]  # type: ignore[assignment]
        return result

    def each(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """`function` of each item, in order. Each process computes a share of them, and all get all. Pickled."""
        if self.size == 1:
            return [function(item) for item in items]
        import torch.distributed as dist

        shares: list[Any] = [None] * self.size
        dist.all_gather_object(shares, [function(item) for item in items[self.rank :: self.size]], group=self.waits)
        return [shares[index % self.size][index // self.size] for index in range(len(items))]

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.each(lambda item: item, range(self.size))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place. Carries no gradient."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(values, group=self.steps)
        return values

    def check_same(self, settings: str) -> None:
        """Raises EdgeHalError if `settings` differ between the processes."""
        here = f"process {self.rank} on {os.uname().nodename}"
        theirs = self.each(lambda each: each, [(here, settings)] * self.size)
        others = [name for name, other in theirs if other != theirs[0][1]]
        if others:
            what = f"{others[0]} has other settings, videos or versions than process 0"
            raise EdgeHalError(what, "", "start the same command, in the same folder, on all machines")


ALONE = World()


@contextlib.contextmanager
def world_of_torchrun() -> Iterator[World]:
    """The processes that torchrun started; without it, this process alone.

    Inside, only the first one prints. If one of them fails or ends, all end, and one of them tells why.

    Raises:
        EdgeHalError: as raised inside; or another process ended; or there are more processes than GPUs.
    """
    found = {name: os.environ.get(name, "") for name in VARIABLES}
    if not all(found.values()) or found["WORLD_SIZE"] == "1":
        yield ALONE
        return
    # torch would warn that it looks for parameters without a gradient. A process whose rows have no label has some.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    rank, local_rank, local_size = (int(found[name]) for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    store, rank, size = next(rendezvous("env://", timeout=STEP_TIMEOUT))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=PrefixStore("edge-hal", store),
        rank=rank,
        world_size=size,
        timeout=STEP_TIMEOUT,
    )
    steps, waits = dist.new_group(timeout=STEP_TIMEOUT), dist.new_group(backend="gloo", timeout=WORK_TIMEOUT)
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        with _silent() if rank else contextlib.nullcontext():
            _choose_gpu(local_rank, local_size)
            yield World(rank, size, local_size, steps, waits)
    except (EdgeHalError, RuntimeError) as error:
        told = _as_told(error)
        if not _is_first_to_tell(store, rank):
            sys.exit(told.exit_code)
        raise told from error
    finally:
        signal.signal(signal.SIGTERM, before)
        dist.destroy_process_group()


def _choose_gpu(local_rank: int, local_size: int) -> None:
    import torch

    if not torch.cuda.is_available():
        return
    if local_size > torch.cuda.device_count():
        what = f"{local_size} processes on a machine with {torch.cuda.device_count()} GPUs"
        raise EdgeHalError(what, "each needs a GPU of its own", "start fewer, or hide the GPUs: CUDA_VISIBLE_DEVICES=")
    torch.cuda.set_device(local_rank)


def _stop(number: int, frame: FrameType | None) -> None:
    raise EdgeHalError("the training was stopped", "torchrun ended it, by request or after a failure", CONTINUE)


def _as_told(error: EdgeHalError | RuntimeError) -> EdgeHalError:
    """The error as the user reads it. Raises it again if it is a fault of ours."""
    if isinstance(error, EdgeHalError):
        return error
    import torch.distributed as dist

    if not isinstance(error, dist.DistError) and "gloo" not in str(error):
        raise error
    why = "it failed, was killed, or its machine cannot be reached; torchrun tells which one below"
    return EdgeHalError("another process of this training ended", why, CONTINUE)


def _is_first_to_tell(store: Any, rank: int) -> bool:
    """Whether no other process has told an error yet."""
    try:
        return bool(store.compare_set("edge-hal/told", "", str(rank)) == str(rank).encode())
    except (RuntimeError, ValueError):
        return True  # torchrun itself has ended


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield
