"""Environments of a Kubernetes cluster: app files, params, manifests, and the verbs that act on a cluster."""
