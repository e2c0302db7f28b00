"""What the numbers mean: statistics, the summary of a run, and its answer in words."""
