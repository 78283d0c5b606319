"""Decisions made once: devices, dtypes, memory, progress, private scikit-learn imports."""
