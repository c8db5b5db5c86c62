"""The commands of `wormhole`, one file each. They ask the running pod over its control socket, or start and stop it.

Must never import a heavy library (trio, zeroconf, pycrdt, cryptography, pyfuse3 ...) at module level: a command that
only asks and prints starts fast.
"""
