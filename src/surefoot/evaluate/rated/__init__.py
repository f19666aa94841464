"""Ratings of runs on disk: what people are asked, what they answered, and from when on that may be known. No torch."""
