"""Where models live: export and model directories, on a disk or in an object store."""
