"""The contract of a workload: what the training loop, the exporter and the UI ask of it."""
