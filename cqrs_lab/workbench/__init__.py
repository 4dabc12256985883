"""The workbench: workloads, importers, latency, figures and widgets over a lab."""
