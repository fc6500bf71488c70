"""An archive whose every answer a test writes itself: what the stand-in exchange, which is faithful, never sends."""

from http.server import BaseHTTPRequestHandler

from tests.support.archive_files import STEM, checksum
from tests.support.scripted_rest import Reply, ScriptedRest, served

MISSING = Reply(b"<Error><Code>NoSuchKey</Code></Error>", status=404)
DAILY = f"/data/spot/daily/trades/BTCUSDT/{STEM}.zip"
MONTHLY = f"/data/spot/monthly/trades/BTCUSDT/{STEM[:-3]}.zip"


class ScriptedArchive(ScriptedRest):
    """Answers each path with the replies of `files`, one after the other, the last for ever; what is not there is
    missing. `paths`: what was asked for, in order, as it was sent."""

    def __init__(self) -> None:
        super().__init__(served)
        self.files: dict[str, list[Reply]] = {}
        self.paths: list[str] = []

    def put(self, path: str, content: bytes) -> None:
        """A file with its CHECKSUM."""
        self.files[path] = [Reply(content)]
        self.files[f"{path}.CHECKSUM"] = [Reply(checksum(content, path.rsplit("/", 1)[1]))]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.paths.append(handler.path)
        replies = self.files.get(handler.path, [MISSING])
        self._send(handler, replies.pop(0) if len(replies) > 1 else replies[0])
