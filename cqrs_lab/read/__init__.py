"""The read side: events in, answers out. Never imports `cqrs_lab.write`."""
