"""Asks a model server what digit a picture shows, over REST or gRPC."""
