"""The first alignment: a hidden Markov model over each transcript, trained by EM from many restarts.

`first_alignment.py` is what training calls; `align.py` does the work. `problem.py`, `transcript_chain.py`,
`sub_states.py`, `em.py`, `viterbi.py`: data, chains, training, forced alignment. `restart_search.py`: which restart to
trust. `known_labels.py`: some videos are labelled. `list_edits.py`, `list_correction.py`, `unordered_lists.py`: step
lists with errors or without order. `alignment_file.py`: the result on the disk. To add an aligner, return a
`FirstAlignment` and call it from `find_first_alignment`.
"""
