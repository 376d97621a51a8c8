"""The options of `edge-hal run`: type, name and help text of each. A module has the name of its help panel.

An option is an alias that `commands/run.py` gives to a parameter, beside its default.
"""
