"""The rating page: which of two answers is better, asked without saying whose they are."""
