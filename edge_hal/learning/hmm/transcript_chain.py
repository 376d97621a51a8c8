"""Left-to-right hidden Markov chains with Gaussian states, one chain per transcript.

State k * S + j is sub-state j of action k. The chain of a video passes through the sub-states of the actions of its
transcript in order, from the first frame to the last. With a pause, every action ends in one more state, which all
actions share. Probabilities are kept as logarithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .known_labels import is_complete
from .sub_states import chain_of, stops_of

Array = NDArray[np.float64]

NEVER = -1e30  # log probability of an impossible event; finite, so that differences are not nan
LEAVE = (0.01, 0.99)  # limits of the exit probability of a state
LOWEST_VARIANCE = 0.05  # of whitened features, so that no state shrinks to a point


@dataclass(frozen=True)
class Gaussians:
    """Means and variances (S, d) of the states."""

    mean: Array
    variance: Array

    def log_likelihood(self, x: Array, power: float) -> Array:
        """Log-likelihood (..., S) of frames x (..., d) under each state, times `power`."""
        precision = 1 / self.variance
        quadratic = (x**2) @ precision.T - 2 * x @ (self.mean * precision).T
        constant = (self.mean**2 * precision + np.log(2 * np.pi * self.variance)).sum(axis=1)
        return np.asarray(-0.5 * power * (quadratic + constant))


@dataclass(frozen=True)
class Counts:
    """Expected counts of each state.

    Attributes:
        mass: (S, 1) sum of the weights of its frames.
        first, second: (S, d) weighted sums of x and of x squared.
        visits, frames: (S,) how often a chain enters it, and the expected number of frames in it.
    """

    mass: Array
    first: Array
    second: Array
    visits: Array
    frames: Array

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, n) + getattr(other, n) for n in self.__dataclass_fields__))

    def gaussians(self) -> Gaussians:
        """The maximum a posteriori Gaussians. The prior is one frame of variance 1."""
        mean = self.first / (self.mass + 1e-9)
        spread = np.maximum(self.second - self.mass * mean**2, 0)
        return Gaussians(mean, np.maximum((spread + 1) / (self.mass + 1), LOWEST_VARIANCE))

    def leave(self) -> Array:
        """Exit probability (S,): that the chain leaves a state after a frame."""
        return np.clip((self.visits + 1e-3) / (self.frames + 2e-3), *LEAVE)


class Batch:
    """A few videos of similar length, padded together: T frames, N videos, P positions of the chains."""

    def __init__(
        self,
        videos: Sequence[Array],
        transcripts: Sequence[Sequence[int]],
        sub_states: int,
        pause: int | None = None,
        known_segments: Sequence[NDArray[np.int64] | None] | None = None,
    ) -> None:
        """`labelled`: (N,) whether all segments of a video are known.

        Args:
        videos: (T_i, d) per video.
        pause: index of the shared pause state; None for no pause.
        known_segments: per video None, or (T_i,) the index in the transcript of the segment that each frame is
            known to belong to, -1 if it is not known.
        """
        self.transcripts = transcripts
        self.lengths = np.array([len(x) for x in videos])
        self.rows = np.arange(len(videos))
        self.x = np.zeros((self.lengths.max(), len(videos), videos[0].shape[1]))
        for i, video in enumerate(videos):
            self.x[: len(video), i] = video
        self.valid = np.arange(len(self.x))[:, None] < self.lengths

        self.known_segments = list(known_segments) if known_segments is not None else [None] * len(videos)
        self.chains = [
            chain_of(n, transcript, sub_states, pause, known)
            for n, transcript, known in zip(self.lengths.tolist(), transcripts, self.known_segments, strict=True)
        ]
        sizes = [len(chain.states) for chain in self.chains]
        self.last = np.array(sizes) - 1
        self.chain = np.zeros((len(videos), max(sizes)), np.int64)
        self.depth = np.zeros(self.chain.shape)  # distance of the segment from the nearer end of the video, in segments
        self.real = np.arange(max(sizes)) <= self.last[:, None]
        for i, chain in enumerate(self.chains):
            self.chain[i, : sizes[i]] = chain.states
            self.depth[i, : sizes[i]] = np.minimum(chain.segments, chain.segments[-1] - chain.segments)
        self.labelled = np.array(
            [
                segments is not None and is_complete(segments, transcript)
                for segments, transcript in zip(self.known_segments, transcripts, strict=True)
            ]
        )
        self.excluded = self._excluded() if any(known is not None for known in self.known_segments) else None

    def _excluded(self) -> NDArray[np.bool_]:
        """(T, N, P): true for positions that a known segment label rules out."""
        excluded = np.zeros((len(self.x), *self.chain.shape), bool)
        for i, segments in enumerate(self.known_segments):
            if segments is not None:
                segment = np.full(self.chain.shape[1], -1)
                segment[: self.last[i] + 1] = self.chains[i].segments
                known = np.flatnonzero(segments >= 0)
                excluded[known, i] = segments[known, None] != segment
        return excluded

    def initial_posteriors(self, per_label: Array) -> tuple[Array, Array]:
        """Exit probabilities (N, P) and posteriors (T, N, P), 0 or 1, of a split with durations in proportion to
        `per_label` (K,), along the segments that are known."""
        leave = np.full(self.chain.shape, 0.5)
        gamma = np.zeros((len(self.x), *self.chain.shape))
        for i, transcript in enumerate(self.transcripts):
            share = per_label[np.asarray(transcript)][self.chains[i].segments] * self.chains[i].shares
            count, length = share.size, self.lengths[i]
            segments = self.known_segments[i]
            if segments is None:
                # Every position gets one frame, and a share of the rest.
                edges = share.cumsum() / share.sum() * (length - count)
                stops = np.round(edges).astype(np.int64) + np.arange(1, count + 1)
            else:
                stops = stops_of(segments, np.split(share, np.cumsum(self.chains[i].parts)[:-1]))
            leave[i, :count] = 1 / np.maximum(np.diff(stops, prepend=0), 1)
            where = np.searchsorted(stops, np.arange(length), side="right")
            gamma[np.arange(length), i, where] = 1.0
        return np.clip(leave, *LEAVE), gamma

    def expected_counts(self, gamma: NDArray[np.floating], weight: Array, states: int) -> Counts:
        """Counts of each of `states` states from posteriors (T, N, P), positions weighted by `weight` (N, P); those of
        weight 0 count nowhere."""
        to_state = np.zeros((*self.chain.shape, states))
        np.put_along_axis(to_state, self.chain[..., None], (self.real * weight)[..., None], axis=2)
        by_state = (gamma.transpose(1, 0, 2) @ to_state).transpose(1, 0, 2)[self.valid]
        x = self.x[self.valid]
        counted = self.real & (weight > 0)
        state = self.chain[counted]
        return Counts(
            by_state.sum(axis=0)[:, None],
            by_state.T @ x,
            by_state.T @ (x * x),
            np.bincount(state, minlength=states).astype(np.float64),
            np.bincount(state, gamma.sum(axis=0)[counted], minlength=states).astype(np.float64),
        )

    def forward_backward(self, emission: Array, leave: Array) -> tuple[Array, NDArray[np.float32]]:
        """The forward-backward algorithm: log-likelihood (N,) and posterior marginals (T, N, P) of the chains.

        A chain begins at its first position and ends at its last. The backward pass is the forward pass of the
        reversed videos, so both run in one loop. float32 is enough, because the largest emission of each frame is
        subtracted first and the numbers stay small.

        Args:
            emission: (T, N, S) log-likelihoods. leave: (N, P) exit probabilities.
        """
        count, last = len(self.rows), self.last
        seen = np.take_along_axis(emission, np.broadcast_to(self.chain, (len(emission), *self.chain.shape)), axis=2)
        if self.excluded is not None:
            seen[self.excluded] = NEVER
        best = np.where(self.real, seen, NEVER).max(axis=2)
        seen = (seen - best[..., None]).astype(np.float32)
        both = np.zeros((len(seen), 2 * count, seen.shape[2]), np.float32)
        both[:, :count] = seen
        stay, move = np.log1p(-leave), np.full((2 * count, seen.shape[2]), NEVER, np.float32)
        move[:count, 1:] = np.log(leave)[:, :-1]
        stays = np.concatenate([stay, stay]).astype(np.float32)
        for i, (n, p) in enumerate(zip(self.lengths, last, strict=True)):
            both[:n, count + i, : p + 1] = seen[:n, i, : p + 1][::-1, ::-1]
            stays[count + i, : p + 1] = stay[i, : p + 1][::-1]
            move[count + i, 1 : p + 1] = np.log(leave[i, :p])[::-1]
        passes = both  # in place: each row is read before it is overwritten
        passes[0, :, 1:] = NEVER
        a, b = np.empty_like(stays), np.empty_like(stays)
        for t in range(1, len(passes)):
            before, now = passes[t - 1], passes[t]
            np.add(before, stays, out=a)
            np.add(before[:, :-1], move[:, 1:], out=b[:, 1:])
            b[:, 0] = NEVER
            high = np.maximum(a, b)
            np.abs(np.subtract(a, b, out=a), out=a)
            np.exp(np.negative(a, out=a), out=a)
            np.log(np.add(a, 1, out=a), out=a)
            now += high
            now += a
        total = passes[self.lengths - 1, self.rows, last]
        gamma = np.zeros(seen.shape, np.float32)
        for i, (n, p) in enumerate(zip(self.lengths, last, strict=True)):
            path = passes[:n, i, : p + 1] + passes[:n, count + i, : p + 1][::-1, ::-1]
            path -= seen[:n, i, : p + 1] + total[i]  # both passes contain the emission of the frame
            found = np.exp(np.minimum(path, 0.0, out=path))
            gamma[:n, i, : p + 1] = found / np.maximum(found.sum(axis=1, keepdims=True), 1e-30)
        likelihood = total + np.where(self.valid, best, 0.0).sum(axis=0)
        return np.asarray(likelihood, np.float64), gamma

    def free_log_likelihood(self, emission: Array, leave: Array, sub_states: int) -> Array:
        """Log-likelihood (N,) of the same states if every action may follow every other.

        Args:
            emission: (T, N, S) log-likelihoods. leave: (S,) exit probabilities.
        """
        labels = leave.size // sub_states
        stay, move = np.log1p(-leave), np.log(leave)
        first = np.arange(0, labels * sub_states, sub_states)
        end = first + sub_states - 1
        pause = leave.size > labels * sub_states
        last = np.array([leave.size - 1]) if pause else end
        now = np.full(emission.shape[1:], NEVER)
        now[:, first] = emission[0][:, first] - np.log(labels)
        total = np.zeros(len(self.lengths))
        for t in range(len(emission)):
            if t:
                step = now + move
                enter = np.logaddexp.reduce(step[:, last], axis=1) - np.log(labels)
                rest = np.logaddexp.reduce(step[:, end], axis=1)
                step = np.roll(step, 1, axis=1)
                if pause:
                    step[:, -1] = rest
                step[:, first] = enter[:, None]
                now = _log_add(now + stay, step) + emission[t]
            done = self.lengths - 1 == t
            total[done] = np.logaddexp.reduce(now[done][:, last], axis=1)
        return total

    def segment_posteriors(self, gamma: NDArray[np.floating]) -> list[NDArray[np.floating]]:
        """Posterior (T_i, M_i) of each segment at each frame, for each video, from posteriors of positions (T, N,
        P)."""
        return [
            np.add.reduceat(gamma[:n, i, : last + 1], np.cumsum(chain.parts) - chain.parts, axis=1)
            for i, (n, last, chain) in enumerate(zip(self.lengths, self.last, self.chains, strict=True))
        ]


def _log_add(a: Array, b: Array) -> Array:
    high: Array = np.maximum(a, b)
    return high + np.log1p(np.exp(np.minimum(a, b) - high))
