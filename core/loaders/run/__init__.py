"""Engines: started, watched, measured and ended, so that nothing of them outlives this process."""
