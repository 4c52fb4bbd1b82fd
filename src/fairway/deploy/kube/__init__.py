"""The Kubernetes API: the only package that knows a client for it."""
