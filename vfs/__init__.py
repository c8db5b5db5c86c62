"""The POSIX face of the tree: inode numbers, open files, the FUSE mount."""
