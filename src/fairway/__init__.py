"""fairway takes a TensorFlow model from a laptop to a served model on Kubernetes."""

__version__ = "0.1.0"
