"""The loader `mapped`: PyTorch computes with the pages of the mapped file."""
