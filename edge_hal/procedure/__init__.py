"""The procedure, and whether it is followed. numpy only, since it runs on the device.

`rules.py`: the procedure as data, `procedure.json`; `check.py` finds what is wrong in an edited one. `conformance.py`:
decisions in, deviations and cycles out (`cycle_reports.py`). It finds which segments count, and `cycles.py` judges them
by the rules (`cycle_rules.py`) and by what is known of the cycle that goes on (`running_cycle.py`). `kept_cycle.py`:
what is kept of it over a pause. `precedence.py`: which step must come before which, learned from step lists.
"""
