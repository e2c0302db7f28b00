"""What every setting would cost under a workload, simulated from what a run has measured. It holds no sentences.

It imports `bench`, `advice`, `residency` and what these import.
"""
