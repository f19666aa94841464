"""`surefoot rlhf`: SFT, pairs, reward model, PPO, DPO and their comparison, each from what the one before it left."""
