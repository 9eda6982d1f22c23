"""`python -m shardline.replica`: settings come from SHARDLINE_* variables (docs/configuration.md)."""

import sys

from shardline.replica.app import main

sys.exit(main())
