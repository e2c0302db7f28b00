"""Tests of the runner: real runner processes, real measurements, and the files that they leave on disk."""
