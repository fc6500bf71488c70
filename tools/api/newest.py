"""The newest trades as the API tells them, kept while they are the newest: between two questions about all symbols few
change, and writing the digits of the others anew would take most of the answer's time."""

from model.trade import Trade
from report import answers
from storage import questions


class Newest:
    """The last answer about each symbol that was asked about: as many as there are symbols. For any thread."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Trade, answers.Latest]] = {}

    def tell(self, found: questions.Latest) -> answers.Latest:
        """The answer, with the age and what is missing as they are now."""
        symbol = found.trade.symbol
        trade, told = self._known.get(symbol, (None, None))
        if told is None or trade != found.trade:
            told = answers.latest(found)
            self._known[symbol] = found.trade, told
        return answers.Latest(
            symbol,
            told.trade_id,
            told.timestamp,
            told.price,
            told.quantity,
            told.buyer_is_maker,
            told.received_at,
            found.age_ms,
            found.missing,
        )
