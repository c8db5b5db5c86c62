"""What every other package may use: identifiers, the error hierarchy, the layout of a pod's home.

Must never import anything of ours, and must never do I/O at import time.
"""
