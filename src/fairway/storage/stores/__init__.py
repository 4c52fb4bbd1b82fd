"""The clients of disks and object stores: one interface, `store.Store`, which `uri.open_store` gives."""
