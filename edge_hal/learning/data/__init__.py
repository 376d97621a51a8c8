"""Training data.

`mstcn_files.py`: label files of the MS-TCN layout. `media_files.py`: feature and video files. `dataset.py`: both as a
`VideoSet`. `rates.py`: the choice of the model's rate. `recordings.py`: videos sampled at that rate.
"""
