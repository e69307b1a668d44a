"""`python -m xtalk_check CERTIFICATE --spec SPEC --weights FILE [--json]`."""

import sys

from xtalk_check.main import main

if __name__ == "__main__":
    sys.exit(main())
