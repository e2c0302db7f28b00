"""Tests of what answers: loaders with real checkpoints, the app in this process, and real server processes."""
