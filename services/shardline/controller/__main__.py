"""`python -m shardline.controller [uninstall]`: settings come from SHARDLINE_* variables."""

import sys

from shardline.controller.app import main

sys.exit(main(sys.argv[1:]))
