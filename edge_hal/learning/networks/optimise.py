"""The training loop of all networks. It resumes after any epoch and is deterministic given the seed."""

from __future__ import annotations

import inspect
import json
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from edge_hal.errors import EdgeHalError
from edge_hal.files import CONTINUE, replacing
from edge_hal.progress import Progress

from .share import Batch, Loss
from .world import ALONE, World

SYNC_BUFFERS = next(  # torch 2.13 has another name
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)
WARM_UP = 0.1
"""Share of the steps over which the learning rate rises, before the cosine decay."""


def training_device() -> torch.device:
    """CUDA if there is a GPU (`CUDA_VISIBLE_DEVICES=` hides it), otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        folder: holds the training state until the run is complete.
        device: where the network and its inputs are. Random numbers come from the CPU, except those of dropout,
            of noise on pictures and of the latent samples.
        world: the processes that share each batch. The first one keeps the training state.
    """

    name: str
    folder: Path
    seed: int
    progress: Progress
    device: torch.device = field(default_factory=training_device)
    world: World = ALONE

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}.safetensors"

    def optimise(
        self,
        module: nn.Module,
        epoch: Callable[[int, torch.Generator], Iterator[Batch]],
        *,
        epochs: int,
        steps: int,
        lr: float,
        weight_decay: float,
        memory: dict[str, Tensor] | None = None,
    ) -> None:
        """Train with AdamW: one step for each batch that `epoch(number, generator)` yields. The network is on `device`
        during training and on the CPU afterwards. With several processes the result is that of one, but for rounding.

        An interrupted stage resumes after its last complete epoch. The random numbers of an epoch depend only on seed,
        stage and epoch, so the result is that of an uninterrupted run.

        Args:
            steps: the approximate number of batches per epoch, for the learning rate (warm-up, then cosine to 1 %).
            memory: further tensors of the training state. They are updated in place when a stage resumes.
        """
        memory = {} if memory is None else memory
        module.to(self.device)
        # Each process repeats this update, so its time limits the speed-up. One process keeps the kernel that it had.
        fused = self.world.size > 1 or None
        optimiser = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=weight_decay, fused=fused)
        done = self._load(module, optimiser, memory)
        network: nn.Module = Loss(module, self.world)
        if self.world.size > 1:
            # All processes compute the same running statistics, so nothing but gradients is exchanged.
            only_gradients: dict[str, Any] = {SYNC_BUFFERS: False, "gradient_as_bucket_view": True}
            network = DistributedDataParallel(network, find_unused_parameters=True, **only_gradients)
        for number in range(done, epochs):
            seed = zlib.crc32(f"{self.seed}/{self.name}/{number}".encode())
            torch.manual_seed(seed)  # seeds the generators of the rows of each batch
            generator = torch.Generator().manual_seed(seed)
            module.train()
            losses = []
            for step, batch in enumerate(epoch(number, generator)):
                loss = network(batch, self.device)
                for group in optimiser.param_groups:
                    group["lr"] = lr * _schedule((number + min(1.0, step / steps)) / epochs)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                optimiser.step()
                losses.append(loss.detach())
            mean = self.world.sum(torch.stack(losses).mean()).item() / self.world.size if losses else 0.0
            if not math.isfinite(mean):
                why = f"the loss of epoch {number + 1} is not finite at the learning rate {lr:g}"
                raise EdgeHalError(f"the training of the {self.name} has diverged", why, "choose a lower learning rate")
            if self.world.first:
                self._save(module, optimiser, memory, number + 1)
            self.progress(self.name, number + 1, epochs, f"loss {mean:.3f}")
        module.to("cpu").eval()

    def _save(self, module: nn.Module, optimiser: torch.optim.Optimizer, memory: dict[str, Tensor], done: int) -> None:
        tensors = {f"model.{key}": value for key, value in module.state_dict().items()}
        tensors |= {f"memory.{key}": value for key, value in memory.items()}
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
        copies = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
        with replacing(self.file, todo=CONTINUE) as beside:
            beside.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(save(copies, {"epochs": json.dumps(done)}))

    def _load(self, module: nn.Module, optimiser: torch.optim.Optimizer, memory: dict[str, Tensor]) -> int:
        """Load the training state; the number of completed epochs, 0 if there is none."""
        done, tensors = self.world.from_first(self._stored)
        if not done:
            return 0
        module.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        memory.update({k.removeprefix("memory."): v for k, v in tensors.items() if k.startswith("memory.")})
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("adam."):
                _, index, name = key.split(".", 2)
                state.setdefault(int(index), {})[name] = value
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": state, "param_groups": groups})
        return done

    def _stored(self) -> tuple[int, dict[str, Tensor]]:
        """The number of completed epochs and the training state after them, from the file."""
        try:
            with safe_open(self.file, "pt") as stored:
                done = int(json.loads(stored.metadata()["epochs"]))
                return done, {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return 0, {}


def _schedule(fraction: float) -> float:
    """The learning rate relative to its maximum, after this fraction of the steps."""
    if fraction < WARM_UP:
        return 0.1 + 0.9 * fraction / WARM_UP
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (fraction - WARM_UP) / (1 - WARM_UP)))


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """The indices 0 .. count-1, shuffled, in batches of `size`. The last batch may be smaller."""
    order = torch.randperm(count, generator=generator).tolist()
    for start in range(0, count, size):
        yield order[start : start + size]
