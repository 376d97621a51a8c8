"""The networks in torch. A device never needs them.

`front_end.py`, `attention.py`, `pyramid.py`: features, transformer block, and the pyramid of levels, as causal student
or two-sided teacher. `encoder.py`: pictures to vectors. `latents.py`: regularisation during training. `step.py`: one
level, one step, as it is exported. `one_pass.py`: whole inputs, as the reference. `model_file.py`: a model on disk.
"""
