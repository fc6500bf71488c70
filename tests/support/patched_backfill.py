"""backfill.py with other bounds: PATCHES, a JSON object, sets constants of modules as for patched_capture.py."""

import json
import os
import sys

import backfill
from tests.support.patched_capture import set_constants

if __name__ == "__main__":
    set_constants(json.loads(os.environ.get("PATCHES", "{}")))
    sys.exit(backfill.main())
