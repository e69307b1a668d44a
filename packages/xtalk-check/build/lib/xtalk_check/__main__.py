"""`python -m xtalk_check CERTIFICATE --spec SPEC --weights FILE [--budget UNITS] [--memory BALLS]`."""

import sys

from xtalk_check.main import main

if __name__ == "__main__":
    sys.exit(main())
