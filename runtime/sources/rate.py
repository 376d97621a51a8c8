"""Rates and instants without drift: event k of a regular series happens at k / rate, however large k is."""

from __future__ import annotations

from fractions import Fraction


def exact_rate(hz: float) -> Fraction:
    """A rate as the fraction it was meant to be (29.97... is 30000/1001), so equal rates give equal grids."""
    return Fraction(hz).limit_denominator(1_000_000)


def instant_ns(index: int, rate: Fraction) -> int:
    """When event `index` of a regular series happens, rounded once: nothing accumulates."""
    return (2 * index * 10**9 * rate.denominator + rate.numerator) // (2 * rate.numerator)
