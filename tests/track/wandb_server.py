"""A stand-in for W&B's server, enough for `wandb sync` of version 0.31: keeps what it is sent in memory.

`history[(project, run)]` is the list of rows by their offset in the stream, `files` what was uploaded, `configs` the
configurations, `exits` the exit codes.
"""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StandIn:
    def __init__(self):
        self.history, self.files, self.configs, self.exits, self.summaries = {}, {}, {}, {}, {}
        self.operations = []
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, value, status=200):
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def body(self):
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    parts = []
                    while size := int(self.rfile.readline().strip() or b"0", 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    return b"".join(parts)
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))

            def do_GET(self):
                self.answer({})

            def do_PUT(self):
                name = self.path.removeprefix("/upload/")
                stand_in.files[name] = self.body()
                self.answer({})

            def do_POST(self):
                body = self.body()
                if self.path.startswith("/graphql"):
                    host = f"http://{self.headers['Host']}"
                    self.answer({"data": stand_in.graphql(json.loads(body), host)})
                elif self.path.endswith("/file_stream"):
                    stand_in.stream(self.path, json.loads(body))
                    self.answer({})
                else:
                    self.answer({})

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def graphql(self, request, host):
        query, variables = request["query"], request.get("variables") or {}
        name = re.search(r"(?:query|mutation)\s+(\w+)", query)
        name = name.group(1) if name else ""
        self.operations.append(name)
        if "upsertBucket" in query:
            key = (variables.get("project"), variables.get("name"))
            if variables.get("config"):
                self.configs[key] = json.loads(variables["config"])
            project = {"id": "p", "name": key[0], "entity": {"id": "e", "name": "tests"}}
            bucket = {
                "id": "b", "name": key[1], "displayName": variables.get("displayName"), "description": "",
                "config": variables.get("config"), "sweepName": None, "project": project, "historyLineCount": 0,
            }
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "createRunFiles" in query:
            run = variables.get("run") or variables.get("runName")
            files = [{"name": file, "uploadUrl": f"{host}/upload/{run}/{file}"} for file in variables["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if "serverInfo" in query:
            return {"serverInfo": {"cliVersionInfo": {}, "features": []}}
        viewer = {"id": "v", "entity": "tests", "username": "tests", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer}

    def stream(self, path, body):
        _, _, project, run, _ = path.strip("/").split("/")
        key = (project, run)
        rows = self.history.setdefault(key, {})
        for name, part in (body.get("files") or {}).items():
            if name == "wandb-history.jsonl":
                for place, line in enumerate(part["content"]):
                    # A row at the place of another is only well if it is the same one.
                    row = json.loads(line)
                    before = rows.setdefault(part["offset"] + place, row)
                    assert before == row, (before, row)
            elif name == "wandb-summary.json":
                self.summaries[key] = json.loads(part["content"][-1])
        if body.get("complete"):
            self.exits[key] = body.get("exitcode")

    def rows(self, key):
        rows = self.history.get(key, {})
        assert sorted(rows) == list(range(len(rows))), "rows are missing in the stream"
        return [rows[place] for place in range(len(rows))]
