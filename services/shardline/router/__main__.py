"""`python -m shardline.router`: settings come from SHARDLINE_* variables (docs/configuration.md)."""

import sys

from shardline.router.app import main

sys.exit(main())
