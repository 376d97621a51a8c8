"""Labels that a user gives, and those that a run suggests, in the formats of annotation tools.

`folder.py` reads a folder of any of them. `segments.py`: what all formats share. `csv_file.py`, `eaf.py` (ELAN),
`frames.py` (MS-TCN), `labels/label_studio.py`: a format each, written and read. `order.py`: labels against a step list.
"""
