"""`python -m trivet` is the `trivet` command."""

import sys

from trivet.cli import main

if __name__ == "__main__":
    sys.exit(main())
