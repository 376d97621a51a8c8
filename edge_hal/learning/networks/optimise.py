"""One training loop for everything that is trained: resumable after any epoch, deterministic from the seed."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from edge_hal.files import replacing
from edge_hal.progress import Progress

WARM_UP = 0.1
"""Share of the steps over which the learning rate rises before its cosine fall."""


def training_device() -> torch.device:
    """CUDA where there is one (`CUDA_VISIBLE_DEVICES=` hides it), else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Stage:
    """A stage of training: `folder` holds its checkpoint until the run is complete. What an epoch feeds to the network
    goes to `device`; random numbers come from the CPU everywhere but in dropout and latent samples."""

    name: str
    folder: Path
    seed: int
    progress: Progress
    device: torch.device = field(default_factory=training_device)

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}.safetensors"

    def optimise(
        self,
        module: nn.Module,
        epoch: Callable[[int, torch.Generator], Iterator[Tensor]],
        *,
        epochs: int,
        steps: int,
        lr: float,
        weight_decay: float,
        memory: dict[str, Tensor] | None = None,
    ) -> None:
        """Run `epoch(number, generator)`, which yields losses, and step AdamW on each of them; the network is on
        `device` meanwhile, and on the CPU again after.

        An interrupted stage goes on after its last whole epoch; the random numbers of an epoch depend on
        seed, stage and epoch alone, so the result is the one of an uninterrupted run.

        Args:
            steps: about how many losses an epoch yields, for the schedule (warm-up, cosine to 1 %).
            memory: tensors that belong to the training state; updated in place on resume.
        """
        memory = {} if memory is None else memory
        module.to(self.device)
        optimiser = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=weight_decay)
        done = self._load(module, optimiser, memory)
        for number in range(done, epochs):
            seed = zlib.crc32(f"{self.seed}/{self.name}/{number}".encode())
            torch.manual_seed(seed)  # dropout and latent samples draw from the global generator
            generator = torch.Generator().manual_seed(seed)
            module.train()
            losses = []
            for step, loss in enumerate(epoch(number, generator)):
                for group in optimiser.param_groups:
                    group["lr"] = lr * _schedule((number + min(1.0, step / steps)) / epochs)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                optimiser.step()
                losses.append(loss.detach())
            self._save(module, optimiser, memory, number + 1)
            mean = torch.stack(losses).mean().item() if losses else math.nan
            self.progress(self.name, number + 1, epochs, f"loss {mean:.3f}")
        module.to("cpu").eval()

    def _save(self, module: nn.Module, optimiser: torch.optim.Optimizer, memory: dict[str, Tensor], done: int) -> None:
        tensors = {f"model.{key}": value for key, value in module.state_dict().items()}
        tensors |= {f"memory.{key}": value for key, value in memory.items()}
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        copies = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
        with replacing(self.file) as beside:
            save_file(copies, beside, {"epochs": json.dumps(done)})

    def _load(self, module: nn.Module, optimiser: torch.optim.Optimizer, memory: dict[str, Tensor]) -> int:
        """Epochs already done; 0 where there is no whole checkpoint."""
        try:
            with safe_open(self.file, "pt") as stored:
                done = int(json.loads(stored.metadata()["epochs"]))
                tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
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


def _schedule(fraction: float) -> float:
    if fraction < WARM_UP:
        return 0.1 + 0.9 * fraction / WARM_UP
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (fraction - WARM_UP) / (1 - WARM_UP)))


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Indices 0 .. count-1, shuffled, `size` at a time; the last batch may be smaller."""
    order = torch.randperm(count, generator=generator).tolist()
    for start in range(0, count, size):
        yield order[start : start + size]
