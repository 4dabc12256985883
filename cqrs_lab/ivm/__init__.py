"""Incremental view maintenance: from the SELECT of a read model to a plan of how its rows move.

Text in, text out: nothing here knows a log, a thread, a checkpoint or a mode.
"""
