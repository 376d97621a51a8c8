"""The commands that learn and export; `edge_hal.cli` registers them. Heavy imports stay inside each."""
