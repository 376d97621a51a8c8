"""One stream: frames become ticks (`clock`), ticks become posteriors (`pyramid`, `ring`), posteriors become events
(`recognizer`). What streams of one bundle share is in `runtime/model.py`.
"""
