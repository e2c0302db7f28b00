"""How results look: the table, the page, the list of plugins, progress while a run lasts; `prose` says what was found.

It imports `advice`, `plugins` and what these import.
"""
