"""Training from ordered step lists; `train.py` is the whole of it, `training.py` its steps.

`data/`: data sets. `hmm/`: the first alignment. `encoders/`: the frame encoder. `networks/`: teacher and student.
`run_directory.py`, `hmm/alignment_file.py` and `outcome.py`: what a training writes. A new loss goes to
`networks/losses.py`, a new aligner to `hmm/`.
"""
