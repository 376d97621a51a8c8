"""Calibration: the decoder's thresholds, ranges and layers for int8, confidence."""
