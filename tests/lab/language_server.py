"""pyright's language server, as an editor talks to it: what does it show of a name?"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Editor", "language_server"]


def language_server() -> Path | None:
    """Return where the program is, or None where the linters are not installed."""
    program = Path(sys.executable).with_name("basedpyright-langserver")
    return program if program.exists() else None


class Editor:
    """An editor with one document, which need not exist as a file."""

    def __init__(self, process: "subprocess.Popen[bytes]", folder: Path) -> None:
        self._process = process
        self._uri = (folder / "document.py").as_uri()
        self._number = 0
        self._ask(
            "initialize",
            {
                "processId": os.getpid(),
                "workspaceFolders": [{"uri": folder.as_uri(), "name": folder.name}],
                "capabilities": {"textDocument": {"hover": {"contentFormat": ["plaintext"]}}},
            },
        )
        self._send({"method": "initialized", "params": {}})

    @classmethod
    @contextlib.contextmanager
    def started(cls, program: Path, folder: Path) -> Iterator["Editor"]:
        """Start the server for a project in *folder*, and end it."""
        command = (program, "--stdio")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            try:
                yield cls(process, folder)
            finally:
                process.kill()

    def open(self, text: str) -> None:
        """Have the document contain *text*."""
        document = {"uri": self._uri, "languageId": "python", "version": 1, "text": text}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})

    def hover(self, line: int, column: int) -> str:
        """Return what the editor shows at a place of the text, counted from 0."""
        place = {"line": line, "character": column}
        found = self._ask(
            "textDocument/hover", {"textDocument": {"uri": self._uri}, "position": place}
        )
        return found["contents"]["value"] if found else ""

    def _ask(self, method: str, parameters: dict[str, Any]) -> Any:
        self._number += 1
        self._send({"id": self._number, "method": method, "params": parameters})
        while True:
            message = self._receive()
            if "method" not in message and message.get("id") == self._number:
                return message["result"]
            if (
                "method" in message and "id" in message
            ):  # the server asks for settings, for instance
                count = len(message.get("params", {}).get("items", []))
                self._send({"id": message["id"], "result": [{}] * count or None})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._process.stdin.flush()

    def _receive(self) -> Any:
        assert self._process.stdout
        size = 0
        while line := self._process.stdout.readline().strip():
            if line.lower().startswith(b"content-length:"):
                size = int(line.partition(b":")[2])
        if not size:
            raise RuntimeError("the language server has ended")
        return json.loads(self._process.stdout.read(size))
