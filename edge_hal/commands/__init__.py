"""The commands of `edge-hal`, one file each; `edge_hal.cli` registers them. Heavy imports stay inside the functions."""
