"""Trades as Parquet: exact decimals, UTC times, zstd. Arrow's own CSV reader parses the server's lines."""

from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import csv, parquet

from storage.lines import Chunk

ROW_GROUP_ROWS = 100_000
"""Held in memory at once, about 10 MB; large enough that readers can skip by time without many small reads."""

_AMOUNT = pa.decimal128(20, 8)
_COLUMNS = {
    "timestamp": pa.timestamp("ms", tz="UTC"),
    "trade_id": pa.int64(),
    "price": _AMOUNT,
    "quantity": _AMOUNT,
    "buyer_is_maker": pa.bool_(),
    "received_at": pa.timestamp("us", tz="UTC"),
}
_SYMBOL = pa.dictionary(pa.int32(), pa.string())
_READ = csv.ReadOptions(column_names=list(_COLUMNS), use_threads=False)
_CONVERT = csv.ConvertOptions(column_types=_COLUMNS, strings_can_be_null=False)


def schema(with_symbol: bool) -> pa.Schema:
    """The columns; in a partitioned folder, readers take the symbol from the path."""
    return pa.schema([*([("symbol", _SYMBOL)] if with_symbol else []), *_COLUMNS.items()])


class ParquetWriter:
    """Writes chunks of the layout `plain` to `output`, a binary file, as row groups of ROW_GROUP_ROWS."""

    def __init__(self, output: Any, with_symbol: bool) -> None:
        self._schema = schema(with_symbol)
        self._with_symbol = with_symbol
        # A dictionary shrinks the symbol, which repeats, but would enlarge the other columns.
        self._writer = parquet.ParquetWriter(
            pa.PythonFile(output, mode="w"), self._schema, compression="zstd", use_dictionary=["symbol"]
        )
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0

    def write(self, symbol: str, chunk: Chunk) -> None:
        """Adds the trades of `chunk`, which are all of `symbol`."""
        table = csv.read_csv(pa.BufferReader(chunk.text), read_options=_READ, convert_options=_CONVERT)
        if self._with_symbol:
            indices = pa.array([0], pa.int32()).take(pa.array([0] * table.num_rows, pa.int32()))
            table = table.add_column(0, "symbol", pa.DictionaryArray.from_arrays(indices, pa.array([symbol])))
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        if self._waiting_rows >= ROW_GROUP_ROWS:
            self._write_group()

    def close(self) -> None:
        """Writes the buffered rows and the footer."""
        self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=self._waiting_rows)
        self._waiting, self._waiting_rows = [], 0
