"""Patience: a tracking server that errs is asked again by MLflow, some four minutes and without a word; here is one.

What is asked again and for how long is MLflow's own (MLFLOW_HTTP_REQUEST_MAX_RETRIES, ..._BACKOFF_FACTOR). That it
waits is told by urllib3, at a level that nobody sees.
"""

import logging
import threading

WAITS = 2
"""Times in a row from which on urllib3 waits before it asks again; a single error costs nothing and is not told."""
_LOGGER = logging.getLogger("urllib3.connectionpool")


class _Waiting(logging.Filter):
    """Reads what urllib3 notes, and lets through what would have been shown anyway, but for what is said here."""

    def __init__(self, uri: str) -> None:
        super().__init__()
        self.uri, self.shown = uri, _LOGGER.getEffectiveLevel()
        self.failed, self.said, self.lock = 0, False, threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        said, words = str(record.msg), record.args if isinstance(record.args, tuple) else ()
        if said.startswith(("Retry: ", "Retrying (")) and words and "/mlflow" in str(words[-1]):
            self._again()
            return False
        if said.startswith("%s://%s:%s ") and len(words) == 8 and "/mlflow" in str(words[4]):
            self._answered(int(str(words[6])))
        return record.levelno >= self.shown

    def _again(self) -> None:
        with self.lock:
            self.failed += 1
            first, self.said = self.failed >= WAITS and not self.said, self.said or self.failed >= WAITS
        if first:
            print(f"  the tracking server {self.uri} does not answer; waiting for it", flush=True)

    def _answered(self, status: int) -> None:
        if status >= 500 or status == 429:
            return
        with self.lock:
            again, self.failed, self.said = self.said, 0, False
        if again:
            print("  it answers again", flush=True)


def tell_when_waiting(uri: str) -> None:
    """From now on one line on the terminal says that this server is waited for, and one that it is there again."""
    for old in [each for each in _LOGGER.filters if isinstance(each, _Waiting)]:
        _LOGGER.removeFilter(old)
        _LOGGER.setLevel(old.shown)
    if uri.startswith(("http://", "https://")):
        _LOGGER.addFilter(_Waiting(uri))
        _LOGGER.setLevel(logging.DEBUG)
