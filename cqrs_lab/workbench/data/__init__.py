"""Data: made-up workloads and foreign tables, as events for a lab."""
