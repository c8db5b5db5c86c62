"""How the commands talk to the running pod: a Unix socket below its home, one JSON document a line.

The client is plain standard library, so that a command starts fast. Must never import anything above `base`.
"""
