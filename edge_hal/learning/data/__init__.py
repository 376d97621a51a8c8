"""Training data.

`mstcn_files.py`: where the files of a data set are. `step_texts.py`: step lists, frame labels and stamps.
`media_files.py`: feature and video files. `dataset.py`: all of them as a `VideoSet`. `rates.py`: the choice of rates.
`extraction.py`: what a model sees of video files, kept in the cache of `video_cache.py`. `recordings.py`: videos
sampled at the model's rate. `augmentation.py`, `background_swap.py`: videos that were never filmed. `check_videos.py`,
`training_cost.py`, `examine.py`: what can be known before a training. `labels/`: labels of a user, and of tools.
"""
