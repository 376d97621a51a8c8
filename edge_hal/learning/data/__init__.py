"""Training data.

`mstcn_files.py`: label files of the MS-TCN layout. `media_files.py`: feature and video files. `dataset.py`: both as a
`VideoSet`. `rates.py`: the choice of rates. `extraction.py`: what a model sees of video files, kept in the cache of
`video_cache.py`. `recordings.py`: videos sampled at the model's rate. `check_videos.py`, `training_cost.py`,
`examine.py`: what can be known before a training. `labels/`: labels of a user and of annotation tools.
"""
