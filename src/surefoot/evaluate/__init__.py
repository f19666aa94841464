"""Models beside each other on prompts that none of them was trained on, judged by scorers that none was trained on."""
