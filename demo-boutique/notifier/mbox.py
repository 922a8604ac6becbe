"""Mails in a file (mbox, RFC 4155), which is also the memory of what was sent: each says of which seq it is."""

import os
import re

_SEQ = re.compile(rb"^X-Order-Seq: (\d+)$", re.MULTILINE)
_START = b"From shop@boutique.example "
_END = b"\n-- \nThe boutique\n\n"  # no text has it: see _body


class Mailbox:
    def __init__(self, path: str) -> None:
        """Opens it, and takes away a last mail that was not written to its end."""
        self._path = path
        self._open()

    def begin_anew(self) -> None:
        """An empty one. That of before is kept beside it, in place of the one before that."""
        self.close()
        os.replace(self._path, f"{self._path}.before")
        self._open()

    def _open(self) -> None:
        self._file = open(self._path, "a+b", buffering=0)  # noqa: SIM115, it stays open
        self._file.seek(0)
        mails = self._file.read()
        whole = mails.rfind(_END) + len(_END) if _END in mails else 0
        if whole != len(mails):
            self._file.truncate(whole)
        seqs = [int(seq) for seq in _SEQ.findall(mails[:whole])]
        self.last_seq = max(seqs, default=0)
        """The last fact that somebody was told of."""

    def add(self, seq: int, to: str, subject: str, text: str, date: str) -> None:
        """Writes one mail, to the disk. A fact that was mailed before is not mailed again."""
        if seq <= self.last_seq:
            return
        header = f"{date}\nFrom: shop@boutique.example\nTo: {_line(to)}\nSubject: {_line(subject)}\nX-Order-Seq: {seq}\n\n"
        self._append(_START + f"{header}{_body(text)}".encode() + _END)
        self.last_seq = seq

    def _append(self, mail: bytes) -> None:
        """All of it, or nothing: where the disk is full, a part is written and no more is said."""
        end = os.fstat(self._file.fileno()).st_size
        try:
            while mail:
                mail = mail[self._file.write(mail) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(end)
            raise

    def close(self) -> None:
        self._file.close()


def _body(text: str) -> str:
    """The text, with whatever would be taken for a part of the mailbox marked as text."""
    return re.sub(r"^(>*From |X-Order-Seq|-- $)", r">\1", text, flags=re.MULTILINE)


def _line(text: str) -> str:
    """A header's value is one line, whatever a customer called themselves."""
    return " ".join(text.split())[:200]
