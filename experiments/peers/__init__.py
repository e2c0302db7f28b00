"""Measuring other servers and bare forwards against this one."""
