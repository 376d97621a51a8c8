"""Scores of a model on recordings with frame labels.

`scores.py`: all scores of a set of timelines, and those of the uniform split (the floor). `checkpoint_scores.py`: a
checkpoint, streamed. `alignment_scores.py`: the alignment of the training videos. `subscribed_run.py`: what a
subscriber of `edge-hal run` received.
"""
