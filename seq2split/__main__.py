"""`python -m seq2split`."""

import sys

from seq2split.cli import main

sys.exit(main())
