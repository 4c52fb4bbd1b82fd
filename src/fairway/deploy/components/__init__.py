"""Components: params in, manifests out."""
