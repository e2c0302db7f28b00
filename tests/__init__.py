"""The tests, in folders: `pytest tests/unit` starts nothing, the others start processes."""
