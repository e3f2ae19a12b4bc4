"""`metrics-pipeline doctor`: what is wrong with a deployment, in plain words, and what to do.

It only looks: it makes no file and no table, writes nothing and launches nothing, so it may be
asked at any time, whatever runs. `metrics-pipeline check` (`preflight.py`) is for before the start:
it reads the sources, and tries whether stores can be written.
"""
