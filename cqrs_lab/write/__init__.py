"""The write side: commands in, events out. Never imports `cqrs_lab.read`."""
