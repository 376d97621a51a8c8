"""Calibration of what is not trained by gradients.

`fit_decoder.py`, `learn_procedure.py`: thresholds and procedure of the decoder. `confidence.py`: its temperature.
`calibration_set.py`, `observe.py`, `ranges.py`, `sensitivity.py`: recordings, activation ranges and layers for int8.
"""
