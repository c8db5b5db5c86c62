"""What should be: the configuration of cluster and pod, rules for paths, placement.

Pure functions and frozen values only. Nothing here opens a file, reads a clock or talks to another pod.
"""
