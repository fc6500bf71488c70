"""tools.retain, tools.restore after --restore, or tools.load after --load, with other bounds and a chosen death.

PATCHES and DIE_AT as for patched_capture.py.
"""

import json
import os
import sys

from tests.support.patched_capture import let_die, set_constants
from tools import load, restore, retain


def main() -> int:
    """Patches as the environment says, then moves days."""
    set_constants(json.loads(os.environ.get("PATCHES", "{}")))
    if os.environ.get("DIE_AT"):
        let_die(os.environ["DIE_AT"])
    programs = {"--restore": restore.main, "--load": load.main}
    other = programs.get(sys.argv[1]) if len(sys.argv) > 1 else None
    return other(sys.argv[2:]) if other else retain.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
