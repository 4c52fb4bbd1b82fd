"""MNIST: 70,000 handwritten digits of 28 by 28 pixels, in ten classes."""
