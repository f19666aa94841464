"""`python -m surefoot`: what a launcher of several processes starts."""

import sys

from surefoot.cli import main

if __name__ == "__main__":
    sys.exit(main())
