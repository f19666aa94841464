"""Pages over run folders: rating by people, and looking at runs. They read files and never import torch."""
