"""Exit code 0 when JupyterLab answers on its port; `/api` needs no token and tells the version only."""

import os
import sys
import urllib.request

base = (os.environ.get("INGRESS_PATH") or "/").strip("/")
port = os.environ.get("JUPYTER_PORT") or "8080"
url = f"http://127.0.0.1:{port}/" + (f"{base}/api" if base else "api")
try:
    with urllib.request.urlopen(url, timeout=4) as answer:
        sys.exit(0 if answer.status == 200 else 1)
except OSError as error:
    sys.exit(f"JupyterLab does not answer: {error}")
