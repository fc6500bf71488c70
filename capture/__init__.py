"""What runs inside `ws_client.py`: a module for each thread or part.

    connection 1 … n                                back-fill
    (socket_reader.py; each owns its socket)        (gap_filler.py; owns its REST and its database connection)
      │ trades         │ what is no valid trade       │ a page of trades and the gap that it fills, in one transaction
      ▼                ▼                              ▼
    inbox            rejects                      ┌──────────┐
    (inbox.py;       (rejects.py; owns            │ database │
    a bounded        rejects.jsonl)               └──────────┘
    queue)                                            ▲
      │ batches                                       │ a batch and the gaps that it shows, in one transaction
      ▼                                               │
    writer (writer.py; owns its database connection) ─┘
      │ database away   ▲ database back
      ▼                 │
    spool (spool.py; files on the disk, the writer's)

Beside them the sealer (sealer.py) makes candles, over a database connection of its own, and the listing (listing.py)
asks the exchange by REST what it says of the symbols, and of those that are silent (silence.py).

The main thread (pipeline.py, standby.py) owns the list of connections: it opens, watches, replaces and ends them, and
prints the line of progress.py. A thread is stopped by a message and then joined.

A trade is in a connection, in the inbox, with the writer, in the spool or in the database. In the first two it is lost
if the process dies, and the next trade's id shows the gap. The writer lets go of it only after its commit, or after the
spool has it on the disk. What is no valid trade is in rejects.jsonl, and its id is a gap.
"""
