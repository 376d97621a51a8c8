"""From a checkpoint to a certified bundle.

`bundle.py`: the whole of it. `graphs.py`: the ONNX step graphs. `lint.py`: what a graph may contain. `precision.py`,
`quantise.py`, `int8.py`: float16 and int8. `certificate.py`, `tolerance.py`, `layer_checks.py`: the proof that a bundle
computes what was trained. `compute.py`: multiply-adds.
"""
