"""tools.retain, or tools.restore after --restore, with other bounds and a death at a chosen statement.

PATCHES and DIE_AT as for patched_capture.py.
"""

import json
import os
import sys

from tests.support.patched_capture import let_die, set_constants
from tools import restore, retain


def main() -> int:
    """Patches as the environment says, then moves days."""
    set_constants(json.loads(os.environ.get("PATCHES", "{}")))
    if os.environ.get("DIE_AT"):
        let_die(os.environ["DIE_AT"])
    arguments = sys.argv[1:]
    return restore.main(arguments[1:]) if arguments[:1] == ["--restore"] else retain.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
