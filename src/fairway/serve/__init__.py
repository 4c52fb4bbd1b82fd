"""The model server: versions on disk in, TensorFlow Serving's APIs out."""
