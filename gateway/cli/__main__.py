"""`python -m gateway.cli`, where no script is installed."""

import sys

from gateway.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
