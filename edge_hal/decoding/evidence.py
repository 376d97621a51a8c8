"""How much the log posteriors of one tick count as evidence, in the decoders and in the belief."""

LOG_RATIO_LIMIT = 4.0
"""Nats. The log posteriors of one tick are clipped to this range before a boundary is placed, so that one wrong and
very confident tick cannot move the boundary."""
SHARE_POWER = 0.5
"""A posterior is proportional to likelihood times prior, and the prior is the share of time. Networks learn the prior
only in part, so the posterior is divided by this power of it and not by the prior itself."""
