"""The graph of the frame encoder: our own, which is trained, or a pretrained one (`choose.py`)."""
