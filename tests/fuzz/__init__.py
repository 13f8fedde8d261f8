"""Every reader of a file, fed with changed files: `make fuzz` for a long campaign, a short one in the normal tests."""
