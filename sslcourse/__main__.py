"""`python -m sslcourse`, where the `sslcourse` script is not on the path."""

import sys

from sslcourse.cli import main

if __name__ == "__main__":
    sys.exit(main())
