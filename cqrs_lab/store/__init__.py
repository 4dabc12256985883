"""The store: one process, one file, nothing lost. What both sides stand on; it knows neither of them."""
