"""Tests of one part at a time. They start no process and load no model, except where a test is marked `process`."""
