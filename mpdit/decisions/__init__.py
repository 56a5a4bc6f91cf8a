"""Rules that decide comparisons: verdicts, looks, racing, planning.

Pure functions of numbers, without torch. The study calls them to choose the next runs, the analysis
to report, so that both always reach the same verdicts.
"""
