"""The built-in strategies. Each is an ordinary plugin, as a third party would write it."""
