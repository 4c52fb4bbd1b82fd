"""Stores to test against: real servers, each in a child process, on loopback, without root.

For example, without pytest:

    with Swift() as server:
        subprocess.run([...], env=clean_environment(home) | server.environment)
"""
