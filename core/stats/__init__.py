"""What a run has measured: arranged by trial and round, compared, with intervals. It holds no sentences.

It imports `results`.
"""
