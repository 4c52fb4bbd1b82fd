"""Training: from data to an exported version. Imports TensorFlow in all modules but `batches`."""
