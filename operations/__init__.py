"""What a running pod does for the commands of the command line: one operation a file."""
