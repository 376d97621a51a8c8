"""Calibration on training material: now the decoder's thresholds."""
