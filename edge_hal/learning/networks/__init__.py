"""The networks: offline teacher, causal student, their losses and the training loop.

To add a loss: write it in `losses.py`, give it a weight in `config.Weights`, and add it in `teacher.py` or
`student.py`.
"""
