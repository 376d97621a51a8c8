"""A data set of one labelled recording: its first seconds for training, its last ones to score.

    python benchmarks/one_recording.py VIDEO LABELS OUT [--train-s 90] [--test-s 40]
    edge-hal train OUT --split 1 --out RUN            # from the ordered list of its steps
    edge-hal eval OUT --split 1 --ckpt RUN --json

LABELS has one step a line, for each frame. Both parts are compressed again.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import av

BITS_PER_S = 4_000_000


def cut(video: Path, out: Path, parts: dict[str, range]) -> None:
    """Write `out`/NAME.mp4 with these frames of the video, for each name."""
    with av.open(str(video)) as source:
        stream = source.streams.video[0]
        rate = stream.average_rate
        files = {name: av.open(str(out / f"{name}.mp4"), "w") for name in parts}
        streams = {}
        for name, file in files.items():
            streams[name] = file.add_stream("mpeg4", rate=rate)
            streams[name].width, streams[name].height, streams[name].pix_fmt = stream.width, stream.height, "yuv420p"
            streams[name].bit_rate = BITS_PER_S
        for number, frame in enumerate(source.decode(stream)):
            for name, numbers in parts.items():
                if number in numbers:
                    picture = av.VideoFrame.from_ndarray(frame.to_ndarray(format="bgr24"), format="bgr24")
                    files[name].mux(streams[name].encode(picture))
        for name, file in files.items():
            file.mux(streams[name].encode(None))
            file.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train-s", type=float, default=90.0)
    parser.add_argument("--test-s", type=float, default=40.0)
    arguments = parser.parse_args()
    labels, out = arguments.labels.read_text().split(), arguments.out
    with av.open(str(arguments.video)) as source:
        fps = float(source.streams.video[0].average_rate)
    count = len(labels)
    parts = {
        "first": range(round(arguments.train_s * fps)),
        "last": range(count - round(arguments.test_s * fps), count),
    }
    if parts["first"].stop > parts["last"].start:
        raise SystemExit(f"{count / fps:.0f} s are too short for both parts: give --train-s and --test-s")
    for folder in ("videos", "groundTruth", "transcripts", "splits"):
        (out / folder).mkdir(parents=True)
    cut(arguments.video, out / "videos", parts)
    for name, numbers in parts.items():
        steps = labels[numbers.start : numbers.stop]
        (out / "groundTruth" / f"{name}.txt").write_text("".join(f"{step}\n" for step in steps))
        listed = [step for step, _ in itertools.groupby(steps)]
        (out / "transcripts" / f"{name}.txt").write_text("".join(f"{step}\n" for step in listed))
    (out / "mapping.txt").write_text("".join(f"{i} {step}\n" for i, step in enumerate(sorted(set(labels)))))
    (out / "splits" / "train.split1.bundle").write_text("first.txt\n")
    (out / "splits" / "test.split1.bundle").write_text("last.txt\n")


if __name__ == "__main__":
    main()
