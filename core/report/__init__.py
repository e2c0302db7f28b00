"""How results look: the table, the list of plugins, progress while a run lasts."""
