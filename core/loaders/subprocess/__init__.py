"""The loader `subprocess`: each model is in a separate process, which is forked for it."""
