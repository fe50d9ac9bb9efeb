"""A small server of the Hugging Face hub's endpoints that creating and filling a repository uses.

It keeps what it is sent: small files come inside the commit, large ones by the LFS protocol.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_right"
OWNER = "someone"


@dataclass
class Hub:
    """What the hub knows: files and visibility by repository, and all requests it was sent."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    large: int = 4000
    """Files of more bytes go by LFS."""

    def __enter__(self) -> Hub:
        hub = self

        class Handler(_Handler):
            state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, token: str | None = TOKEN) -> dict[str, str]:
        """Returns what a process needs that is to take this for the hub."""
        # Xet's own servers can't be stood in for; large files then go by LFS.
        settings = {"HF_ENDPOINT": self.address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        return {**settings, "HF_TOKEN": token} if token else settings


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, hub = self.path.split("?")[0], self.state
        hub.requests.append(f"{self.command} {path}")
        if path.startswith("/lfs/"):  # the address itself is the permission, as at the hub
            assert sha256(body).hexdigest() == path.removeprefix("/lfs/")
            hub.blobs[path.removeprefix("/lfs/")] = body
            return self._answer({})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer({"error": "Invalid credentials"}, 401)
        if path == "/api/whoami-v2":
            return self._answer({"name": OWNER, "type": "user"})
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if found := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            return self._answer(self._batch(json.loads(body)))
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+)/main)?", path)
        assert found, path
        name, what = found[1], found[2]
        if name not in hub.files:
            return self._answer({"error": "no such repository"}, 404, "RepoNotFound")
        if what == "preupload":
            return self._answer({"files": [self._mode(f) for f in json.loads(body)["files"]]})
        if what == "tree":
            return self._answer([self._entry(*file) for file in hub.files[name].items()])
        if what == "commit":
            return self._commit(name, [json.loads(line) for line in body.splitlines()])
        files = [{"rfilename": file} for file in hub.files[name]]
        facts = {"id": name, "private": hub.private[name], "siblings": files, "sha": "0" * 40}
        return self._answer({**facts, "tags": [], "downloads": 0, "likes": 0})

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization'] or OWNER}/{wanted['name']}"
        there = name in self.state.files
        if not there:
            self.state.files[name] = {}
            private = wanted.get("private", wanted.get("visibility") == "private")
            self.state.private[name] = bool(private)
        self._answer({"url": f"{self.state.address}/{name}"}, 409 if there else 200)

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if file["size"] > self.state.large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def _batch(self, wanted: dict[str, Any]) -> dict[str, Any]:
        def action(oid: str) -> dict[str, Any]:
            return {"upload": {"href": f"{self.state.address}/lfs/{oid}", "header": {}}}

        objects = [{**each, "actions": action(each["oid"])} for each in wanted["objects"]]
        return {"transfer": "basic", "objects": objects}

    def _entry(self, path: str, content: bytes) -> dict[str, Any]:
        return {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = self.state.files[name]
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.state.blobs[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        url = f"{self.state.address}/{name}/commit/{'1' * 40}"
        self._answer({"success": True, "commitUrl": url, "commitOid": "1" * 40})

    def _answer(self, content: object, status: int = 200, code: str = "") -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(body)
