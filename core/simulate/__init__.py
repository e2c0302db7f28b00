"""What every setting would cost under a workload, simulated from the profiles that a run has measured."""
