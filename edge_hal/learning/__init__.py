"""Training from ordered step lists; `train.py` is the whole of it.

`data/`: data sets. `hmm/`: the first alignment. `encoders/`: the frame encoder. `networks/`: teacher and student.
`run_directory.py` and `alignment_file.py`: what a training writes. A new loss goes to `networks/losses.py`, a new
aligner to `hmm/`.
"""
