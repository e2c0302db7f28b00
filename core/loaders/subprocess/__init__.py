"""The loader `subprocess`: each model lives in a process that is forked for it."""
