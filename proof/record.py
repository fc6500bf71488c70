"""What a command that audits days needs around it: the auditor with its connections, and the chain of the proofs."""

import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

import config
import db
from binance.archive import Archive
from binance.limits import Cooldown
from binance.rest import Rest
from proof import text
from proof.days import Auditor
from storage.proofs import Proof

FOLDER = "audit"
"""In DATA_DIR: files while they are compared, and the lists of differences."""
CHAIN_FILE = "proofs.jsonl"


@contextmanager
def auditor(settings: config.Settings, connection: db.Connection) -> Iterator[Auditor]:
    """A block with an auditor over `connection` and a second one."""
    folder = settings.capture_dir / FOLDER
    archive = Archive(settings.archive_url, folder / str(os.getpid()))
    try:
        with closing(db.connect(settings, read_only=True)) as beside:
            yield Auditor(connection, archive, Rest(settings.rest_url, Cooldown()), folder, beside)
    finally:
        archive.close()


def recorded(settings: config.Settings, connection: db.Connection, proof: Proof) -> Proof:
    """The proof in the chain, and as a line of the file beside it."""
    proof = db.add_proof(connection, proof)
    settings.capture_dir.mkdir(parents=True, exist_ok=True)
    with (settings.capture_dir / CHAIN_FILE).open("a", encoding="utf-8") as file:
        # Several databases may share the folder.
        row = {"database": settings.mysql_database, **text.values(proof)}
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return proof
