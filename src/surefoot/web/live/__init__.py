"""The live page: runs side by side while they go on, from their files alone."""
