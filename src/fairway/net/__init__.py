"""Sockets of this machine, and ASGI applications on them."""
