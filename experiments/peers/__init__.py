"""Other servers and bare forwards, measured against this one."""
