"""Speed and memory of one PPO iteration, beside TRL 1.12.0: `make bench`."""
