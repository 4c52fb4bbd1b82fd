"""Where models live: atomic files on disk, and the layout of an export directory."""
