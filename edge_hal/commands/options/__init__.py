"""What was typed, as values. The options that several commands share, or that one command has many of.

`parsing.py`: texts as durations, sizes, choices. `run/`: the options of `edge-hal run`; `run_values.py` makes a run of
them, and `station_file.py` reads them from `station.yaml`, whose keys `command_words.py` makes a command line of.
`page.py`, `subscriber.py`, `workers.py`: options of several commands. `task.py`: which run of a task folder is meant.
`train_inputs.py`, `calibration_inputs.py`: the data.
"""
