"""What exists: the replicated file tree, its merge rules, its log and its view."""
