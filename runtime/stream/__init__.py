"""One stream: frames become ticks (`clock`) and vectors (`frame_input`), ticks become posteriors (`pyramid`, `ring`),
posteriors become events (`recognizer`, `deviation_reports`). What streams of one bundle share is in `runtime/model.py`.
"""
