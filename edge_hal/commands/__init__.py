"""The commands of `edge-hal`, one file each; `edge_hal.cli` registers them. Heavy imports stay inside the functions.

Options that are paths have `readable=False`: Typer does not check them, because our own errors name the user and the
remedy.
"""
