"""What the learning benchmark compares: one row of the tables each."""

from __future__ import annotations

from dataclasses import dataclass

from edge_hal.config import Level

TEACHER = ("learning.teacher.warm_epochs=6", "learning.teacher.epochs=14", "learning.weights.distil=0.5")
REALIGN = (*TEACHER, "learning.teacher.realign_every=2")
HYSTERESIS = "decoder.evidence_hz=0"
SLOW_WINDOW = 64  # ticks that the slow level of the rate rows looks back, at any rate
FRAMES = "learning.supervision=frames"
FAST = "model.levels=[{window: 12, width: 64}]"
LATENTS = ("reconstruction", "sparse", "kl")


@dataclass(frozen=True)
class Method:
    """`settings`: what `edge-hal train` overrides; `labelled`: training videos that carry frame labels, None for
    all. `baseline`: `benchmarks/baselines.py` learns it, after `edge-hal train` where `trained`. `flat`: the levels
    are `flat_level` of the preset's. Without chance (`seeded` false) one seed is enough. `student_only`: its alignment
    is that of `ours`. `stamped`: one frame of each segment of the training videos is labelled, drawn by the seed."""

    name: str
    text: str
    settings: tuple[str, ...] = ()
    labelled: int | None = 0
    baseline: bool = False
    trained: bool = True
    flat: bool = False
    seeded: bool = True
    student_only: bool = False
    stamped: bool = False


def _latents(*kept: str) -> tuple[str, ...]:
    """Settings that switch off HAL's auxiliary terms, but for those kept."""
    return tuple(f"learning.weights.{term}=0" for term in LATENTS if term not in kept)


def _two_levels(stride: int) -> str:
    slow = f"{{stride: {stride}, window: {SLOW_WINDOW // stride}, width: 96}}"
    return f"model.levels=[{{window: 12, width: 64}}, {slow}]"


_METHODS = (
    Method(
        "uniform",
        "uniform split of each video's own step list (the floor)",
        baseline=True,
        trained=False,
        seeded=False,
    ),
    Method("viterbi-em", "hard EM: causal TCN, Viterbi from the uniform split", baseline=True, trained=False),
    Method("cdfl", "hard EM with a discriminative forward loss, after CDFL", baseline=True, trained=False),
    Method("atba", "boundary alignment alone, from the uniform split", ("learning.starter=uniform", *REALIGN)),
    Method(
        "offline-window",
        "offline teacher on a sliding window",
        ("learning.student.epochs=0",),
        baseline=True,
        student_only=True,
    ),
    Method("ours", "ours, step lists only"),
    Method("ours-hysteresis", "ours, decided by hysteresis instead of the filter", (HYSTERESIS,), student_only=True),
    Method("ours-at-once", "ours without lag", ("model.lag_s=0",), student_only=True),
    Method("ours-taught", "ours, and a teacher's posteriors distilled", TEACHER, student_only=True),
    Method("ours-realigned", "ours, boundary alignment again as the teacher learns", REALIGN, student_only=True),
    Method("flat", "ours with one level of equal compute", flat=True, student_only=True),
    Method("ablation-base", "ours without reconstruction, sparsity, KL", _latents(), student_only=True),
    Method("ablation-recon", "base + reconstruction", _latents("reconstruction"), student_only=True),
    Method("ablation-sparse", "base + sparse transitions", _latents("sparse"), student_only=True),
    Method("ablation-kl", "base + KL", _latents("kl"), student_only=True),
    Method("ours-k1", "ours, 1 labelled video", labelled=1),
    Method("ours-k3", "ours, 3 labelled videos", labelled=3),
    Method("ours-k10", "ours, 10 labelled videos", labelled=10),
    Method("ours-stamps", "ours, one frame of each step of all videos", stamped=True),
    Method("ours-full", "ours, all frame labels", (FRAMES,), labelled=None),
    Method("full-hysteresis", "all frame labels, hysteresis", (FRAMES, HYSTERESIS), labelled=None),
    Method("full-flat", "all frame labels, one level of equal compute", (FRAMES,), labelled=None, flat=True),
    Method("full-fast", "all frame labels, the fast level alone, no fusion from above", (FRAMES, FAST), labelled=None),
    Method("full-at-once", "all frame labels, no lag", (FRAMES, "model.lag_s=0"), labelled=None),
    *(
        Method(
            f"rate-{stride}",
            f"all frame labels, two levels, the slow one at 1/{stride} of the rate",
            (FRAMES, _two_levels(stride)),
            labelled=None,
        )
        for stride in (1, 4, 8, 16)
    ),
    Method("gru-full", "causal GRU, all frame labels", labelled=None, baseline=True, trained=False),
    Method("tcn-full", "causal TCN, all frame labels", labelled=None, baseline=True, trained=False),
)
METHODS = {method.name: method for method in _METHODS}
"""In the order of the tables. The ablation's row with all terms is `ours`."""


def multiply_adds(levels: tuple[Level, ...]) -> float:
    """Multiply-adds a tick of a causal pyramid, without the entry of level 0 and the heads."""
    total, rate = 0.0, 1.0
    for index, level in enumerate(levels):
        rate /= level.stride
        width = level.width
        tick = level.blocks * (8 * width**2 + 2 * level.window * width)
        if index > 0:
            tick += 2 * levels[index - 1].width * width
        if index < len(levels) - 1:
            tick += 2 * width**2 + levels[index + 1].width * width
        total += rate * tick
    return total


def flat_level(levels: tuple[Level, ...]) -> Level:
    """Level 0 alone, its window widened until it costs what the whole pyramid did. It also sees about as far."""
    first = levels[0]
    spare = multiply_adds(levels) - multiply_adds((first,))
    return first.model_copy(update={"window": first.window + round(spare / (2 * first.width * first.blocks))})
