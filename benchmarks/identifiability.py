"""Does the learnt slow latent recover the true one? HAL's generative process, simulated, learnt with our own.

    python benchmarks/identifiability.py [--seeds 3] [--only recordings,dwell] [--out FILE.json]
    python benchmarks/identifiability.py --table

Every row is one training run: a world (`benchmarks/simulate.py`), recordings of it, the causal pyramid with its
latents and the losses of the student, a number of steps. Three kinds of supervision: `none` (reconstruction, KL and
sparse transitions alone: what the identifiability theory is about), `transcripts` (also cross-entropy on the labels
that the HMM starter finds from ordered step lists) and `labels` (the same on true labels: the ceiling). Three kinds
of row learn nothing: `input` regresses from the bins' mean features, `untrained` from the network as it was drawn, and
`optimal` from the exact posterior of the states given all fast latents so far, by who knows the world: no causal
learner can do better. Rows that are already in the file are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from simulate import Array, Process, Recording, World, block_r2, mean_correlation
from torch import Tensor, nn

from edge_hal.config import Weights
from edge_hal.errors import EdgeHalError
from edge_hal.files import write_file
from edge_hal.learning.hmm.align import align_with_hmm
from edge_hal.learning.networks.losses import frame_loss, smooth_loss
from edge_hal.learning.networks.teacher import majority
from edge_hal.metrics import transcript_of
from edge_hal.model.front_end import FrontEnd
from edge_hal.model.latents import Latents
from edge_hal.model.pyramid import Pyramid
from edge_hal.spec import FrontEndSpec, LevelSpec, PyramidSpec

LENGTH = 400  # ticks of a recording: 40 s at 10 Hz
CROP, BATCH, RATE = 200, 8, 3e-3
PARTS = (8, 4, 6)  # unseen recordings to fit the regressions on, to choose their widths on, to score on
RESTARTS = 3
COMPONENTS = 12  # of the input, for the correlation: as many as there are signals


@dataclass(frozen=True)
class Run:
    """One row: what is learnt from, and how."""

    seed: int
    supervision: str = "none"
    recordings: int = 64
    dwell: float = 40.0
    memory: float = 1.5
    coupling: float = 1.0
    kl: float = 1e-3
    sparse: float = 1e-3
    causal: bool = True
    steps: int = 300


REFERENCE = Run(0)
LEARNT = ("none", "transcripts", "labels")
FLOOR = ("input", "untrained", "optimal")
EVERY = (*LEARNT, *FLOOR)
BOTH = ("none", "labels", "input")
SWEEPS: dict[str, list[Run]] = {
    "supervision": [replace(REFERENCE, supervision=s) for s in EVERY],
    "recordings": [replace(REFERENCE, recordings=n, supervision=s) for s in BOTH[:2] for n in (4, 16, 64, 256)],
    "dwell": [replace(REFERENCE, dwell=d, supervision=s) for s in (*BOTH, "optimal") for d in (40.0, 20.0, 5.0, 2.0)]
    + [replace(REFERENCE, dwell=20.0, supervision="transcripts")],
    "memory": [replace(REFERENCE, memory=m, supervision=s) for s in (*BOTH, "optimal") for m in (1.5, 20.0, 100.0)],
    "coupling": [replace(REFERENCE, coupling=c, supervision=s) for s in BOTH for c in (0.0, 1.0)],
    "sparse": [replace(REFERENCE, sparse=w) for w in (0.0, 1e-3, 1e-2, 1.0)],
    "kl": [replace(REFERENCE, kl=w) for w in (0.0, 1e-3, 1e-2)],
    "causal": [replace(REFERENCE, causal=c, supervision=s) for s in BOTH[:2] for c in (True, False)],
    "steps": [replace(REFERENCE, steps=n) for n in (300, 1000)],
}


def learn(run: Run) -> dict[str, Any]:
    """One row's measurements. `transcripts` says null where the step lists are longer than the samples to align."""
    process = Process(dwell=run.dwell, memory=run.memory, coupling=run.coupling)
    world = World(process, run.seed)
    spec = PyramidSpec(
        model_hz=10.0,
        labels=tuple(f"state{i}" for i in range(process.states)),
        front_end=FrontEndSpec(process.size, 3),
        levels=(LevelSpec(1, 8, 32, 2, 1), LevelSpec(5, 8, 48, 2, 1)),
    )
    train = [world.recording(LENGTH, 1000 * run.seed + 100 + i) for i in range(run.recordings)]
    unseen = [world.recording(LENGTH, 10**6 + 1000 * run.seed + i) for i in range(sum(PARTS))]
    stacked = np.concatenate([r.x for r in train])
    front_end = FrontEnd(spec.front_end)
    front_end.fit(*(torch.from_numpy(m.astype(np.float32)) for m in (stacked.mean(0), stacked.std(0))))

    def features(recordings: list[Recording]) -> Tensor:
        return torch.stack([front_end(torch.from_numpy(r.x.astype(np.float32))) for r in recordings])

    torch.manual_seed(run.seed)
    pyramid, latents = Pyramid(spec, causal=run.causal), Latents(spec)
    found: dict[str, Any] = {}
    if run.supervision in LEARNT:
        labels = None
        if run.supervision != "none":
            truth = [r.states for r in train]
            try:
                given = truth if run.supervision == "labels" else align(train, process.states, run.seed)
            except EdgeHalError:
                return {"skipped": "more steps than samples to align"}
            found["labels_right"] = float(np.mean(np.concatenate(given) == np.concatenate(truth)))
            labels = torch.from_numpy(np.stack(given))
        optimise(run, pyramid, latents, features(train), labels)
    return found | recovery(run, pyramid, latents, features(unseen), unseen)


def align(recordings: list[Recording], states: int, seed: int) -> list[np.ndarray]:
    """Labels (T,) from step lists alone, as training starts: an HMM at 2 Hz."""
    bins = [r.x.reshape(-1, 5, r.x.shape[1]).mean(1) for r in recordings]
    result = align_with_hmm(bins, [transcript_of(r.states) for r in recordings], states, seed=seed, restarts=RESTARTS)
    return [np.repeat(label, 5) for label in result.labels]


def optimise(run: Run, pyramid: Pyramid, latents: Latents, x: Tensor, labels: Tensor | None) -> None:
    """The student's losses with the product's weights, on crops drawn at random."""
    module = nn.ModuleList([pyramid, latents]).train()
    optimiser = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=run.steps, pct_start=0.1)
    weights = Weights(kl=run.kl, sparse=run.sparse)
    generator = torch.Generator().manual_seed(run.seed)
    for _ in range(run.steps):
        which = torch.randint(len(x), (BATCH,), generator=generator)
        first = 5 * torch.randint((LENGTH - CROP) // 5 + 1, (BATCH,), generator=generator)
        index = first[:, None] + torch.arange(CROP)
        outputs = pyramid(x[which[:, None], index])
        terms = latents(outputs)
        loss = weights.reconstruction * sum(mean.value for mean in terms.reconstruction)
        loss = loss + weights.kl * sum(mean.value for mean in terms.kl) + weights.sparse * terms.sparse.value
        if labels is not None and outputs.action is not None:
            target = labels[which[:, None], index]
            coarse = majority(target, latents.stride, outputs.frame.shape[-1])
            loss = loss + weights.frame * frame_loss(outputs.frame, target).value
            loss = loss + weights.action * frame_loss(outputs.action, coarse).value
            loss = loss + weights.smooth * smooth_loss(outputs.frame, outputs.valid[0]).value
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        schedule.step()


@torch.inference_mode()
def recovery(run: Run, pyramid: Pyramid, latents: Latents, x: Tensor, recordings: list[Recording]) -> dict[str, float]:
    """Block R2 both ways and mean correlation, at the bins of unseen recordings. `leak`: how much of the fast latent's
    own noise (its bin mean less the states' means) the learnt slow latent still tells."""
    pyramid.eval(), latents.eval()
    stride, world = latents.stride, World(Process(dwell=run.dwell, memory=run.memory, coupling=run.coupling), run.seed)

    def binned(values: Array) -> Array:
        return np.asarray(values.reshape(-1, stride, values.shape[-1]).mean(1))

    truth = [binned(r.slow) for r in recordings]
    noise = [binned(r.fast - world.means[r.states]) for r in recordings]
    if run.supervision == "input":
        learnt = [binned(np.asarray(row)) for row in x.double().numpy()]
    elif run.supervision == "optimal":
        learnt = [binned(world.posterior(r.fast, stride)) for r in recordings]
    else:
        mean = latents.slow.posterior(pyramid(x).trunks[-1]).chunk(2, -1)[0]
        learnt = [np.asarray(row) for row in mean.double().numpy()]
    c, z, n = parts(truth), parts(learnt), parts(noise)
    columns = z[2]
    if run.supervision == "input":  # too many columns to assign: their first principal components
        _, _, axes = np.linalg.svd(z[0] - z[0].mean(0), full_matrices=False)
        columns = z[2] @ axes[:COMPONENTS].T
    return {
        "true_from_learnt": block_r2(z, c),
        "learnt_from_true": block_r2(c, z),
        "leak": block_r2(z, n),
        "mcc": mean_correlation(c[2], columns),
    }


def parts(recordings: list[Array]) -> tuple[Array, Array, Array]:
    a, b = PARTS[0], PARTS[0] + PARTS[1]
    return np.concatenate(recordings[:a]), np.concatenate(recordings[a:b]), np.concatenate(recordings[b:])


# Rows ---------------------------------------------------------------------------------------


def wanted(seeds: int, only: list[str]) -> Iterator[Run]:
    """Every row once, those of the first seed first."""
    seen = set()
    for seed in range(seeds):
        for name, runs in SWEEPS.items():
            for run in runs:
                row = replace(run, seed=seed)
                if (not only or name in only) and row not in seen:
                    seen.add(row)
                    yield row


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text()) if path.is_file() else []


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """One line a row, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


COLUMNS = ("true_from_learnt", "learnt_from_true", "leak", "mcc")


def table(rows: list[dict[str, Any]]) -> str:
    """One Markdown table a sweep: median over seeds, and the range."""
    known: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        known[json.dumps({k: v for k, v in row["run"].items() if k != "seed"})].append(row)
    text = []
    for name, runs in SWEEPS.items():
        keys = [name] if name == "supervision" else [name, "supervision"]
        text += [f"\n| {' | '.join(keys)} | c from latent | latent from c | leak | MCC | labels right |"]
        text += [f"|{'---|' * (len(keys) + 5)}"]
        for run in runs:
            setting = asdict(run)
            found = known.get(json.dumps({k: v for k, v in setting.items() if k != "seed"}), [])
            cells = [_spread([row[c] for row in found if c in row]) for c in (*COLUMNS, "labels_right")]
            text.append(f"| {' | '.join([*(str(setting[key]) for key in keys), *cells])} |")
    return "\n".join(text)


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    middle, low, high = (0.0 + round(float(f(values)), 2) for f in (np.median, min, max))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})" if len(values) > 1 else f"{middle:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help=f"sweeps, by comma: {', '.join(SWEEPS)}")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/identifiability.json"))
    parser.add_argument("--table", action="store_true", help="print the tables of what is there, run nothing")
    arguments = parser.parse_args()
    only = [name for name in arguments.only.split(",") if name]
    if set(only) - set(SWEEPS):
        parser.error(f"--only knows {', '.join(SWEEPS)}")
    rows = read(arguments.out)
    if arguments.table:
        print(table(rows).strip())
        return
    torch.set_num_threads(1)
    done = {Run(**row["run"]) for row in rows}
    todo = [run for run in wanted(arguments.seeds, only) if run not in done]
    for number, run in enumerate(todo, 1):
        began_s = time.process_time()
        found = learn(run)
        cpu_s = time.process_time() - began_s
        rows.append({"run": asdict(run), **{k: v if isinstance(v, str) else round(v, 4) for k, v in found.items()}})
        rows[-1]["cpu_s"] = round(cpu_s, 1)
        write(arguments.out, rows)
        print(f"{number}/{len(todo)} {cpu_s:5.1f} s  {asdict(run)}  {found}", flush=True)


if __name__ == "__main__":
    main()
