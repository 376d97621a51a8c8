"""Scores of a model, streamed: from a checkpoint, or from the events a subscriber received."""
