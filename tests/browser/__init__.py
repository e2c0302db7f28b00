"""Tests of what Chromium shows: the page of a server, and the report of a run."""
