"""The loader `mapped`: PyTorch computes on the pages of the mapped file."""
