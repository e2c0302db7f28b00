"""The built-in loading strategies, each an ordinary plugin in the form of a third party's."""
