"""What `edge-hal train` says when a training is complete: whether to trust its alignment, and what would help."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_hal.learning.data.video_set import VideoSet
    from edge_hal.metrics import IntArray


def say_whether_to_trust(
    run: Path, videos: VideoSet, *, known: bool = False, compared: bool = True, task: Path | None = None
) -> bool:
    """Print whether the alignment can be trusted, and if not, why and what to do. Returns whether it is doubtful.

    Args:
        known: it comes from the run that the training began with.
        compared: there were restarts that could disagree.
        task: the task folder that the run belongs to. Labels are then corrected on a page, and used without an option.
    """
    from edge_hal.learning.hmm.alignment_file import ALIGNMENT_FILE, read_alignment
    from edge_hal.learning.hmm.known_labels import worth_labelling
    from edge_hal.learning.hmm.trust import Trust, evidence_in

    found = read_alignment(run / ALIGNMENT_FILE).values()
    if known:
        share = sum(evidence_in(video).agreement for video in found) / len(found)
        print(f"the run that this one began with agrees with the step lists on {share:.0%} of the frames")
        return False
    if any(v.labels is not None and _complete(v.labels, v.transcript) for v in videos.videos):
        return False  # a video with labels of all its steps leads the alignment, and there were no restarts
    evidence = [evidence_in(video) for video in found]
    trust = Trust.of(evidence)
    agreement = sum(each.agreement for each in evidence) / len(evidence)
    chance = sum(each.chance for each in evidence) / len(evidence)
    agree = f"the restarts of the alignment agree on {agreement:.0%} of the frames"
    if not trust.doubtful:
        print(agree if compared else "whether the alignment is right is not known: it was not compared with others")
        return False
    reasons = []
    if "agreement" in trust.weak:
        reasons.append(
            f"{agree}; the step lists and durations alone give {chance:.0%}. The features do not decide where the "
            "steps are."
        )
    if "order" in trust.weak:
        reasons.append(
            f"the features tell {max(trust.order, 0.0):.0%} of the order of the steps. Steps that were found look "
            "alike: parts of one step, such as an idle time, may be in others."
        )
    if "short_ends" in trust.weak:
        reasons.append(
            f"{trust.short_ends:.0%} of the first and last steps are as short as possible. All steps may be shifted "
            "into their neighbours."
        )
    names = worth_labelling(videos.videos, 2)
    then = f"then train with --labelled {','.join(names)}"
    if task is not None:
        then = f"with edge-hal correct {shlex.quote(str(task))}, then train again"
    lists = len({video.transcript for video in videos.videos})
    print(
        "CAUTION: the alignment of the videos with their step lists may be wrong on most frames:\n"
        + "".join(f"  - {reason}\n" for reason in reasons)
        + f"label the frames of one or two videos, these first: {' and '.join(names)}; {then}\n"
        f"or add videos whose steps have another order: the {len(videos)} videos have {lists} different "
        f"list{'s' if lists > 1 else ''}",
        file=sys.stderr,
    )
    return True


def _complete(labels: IntArray, transcript: tuple[int, ...]) -> bool:
    """Whether a frame of each segment is labelled: the search has no restarts then."""
    from edge_hal.learning.data.labels.order import places_in_list
    from edge_hal.learning.hmm.known_labels import is_complete

    places = places_in_list(labels, transcript)
    return bool((labels >= 0).all()) or (not isinstance(places, int) and is_complete(places, transcript))


def say_what_labels_are_worth(run: Path) -> None:
    """Print what labels would be worth, if the training could estimate it."""
    from edge_hal.learning.label_worth import told
    from edge_hal.learning.run_directory import LABELS_FILE

    if (run / LABELS_FILE).is_file():
        print(told(json.loads((run / LABELS_FILE).read_text())))


def say_if_unfitted(videos: int, given: Mapping[str, float]) -> None:
    """Print that the settings of `--decide` are defaults, if no video was held out to fit them on."""
    from edge_hal.calib.fit_decoder import older_asked_for
    from edge_hal.calib.fit_patience import UNFITTED
    from edge_hal.learning.training import LEAST_HELD_OUT

    if videos < LEAST_HELD_OUT and "decide_at" not in given and older_asked_for(given) is None:
        settings = ", ".join(f"{name} {value:g}" for name, value in UNFITTED.items())
        print(
            f"the settings of --decide are the defaults ({settings}): to fit them on held-out videos, training needs "
            f"at least {LEAST_HELD_OUT}"
        )
