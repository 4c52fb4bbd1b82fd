"""The files of an app and its environments: found, read, changed in place, taken over from ksonnet."""
