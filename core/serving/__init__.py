"""Between a route and a strategy: who counts the loads, and which thread runs what."""
