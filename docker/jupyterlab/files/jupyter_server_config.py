"""JupyterLab's settings in the dev-server image; read by Jupyter, which provides `c`."""

import os

c = get_config()  # noqa: F821 - given by Jupyter when it reads this file
c.ServerApp.ip = "0.0.0.0"  # noqa: S104 - the pod's own address; the platform's ingress stands before it
c.ServerApp.port = int(os.environ.get("JUPYTER_PORT") or 8080)
c.ServerApp.port_retries = 0
c.ServerApp.open_browser = False
c.ServerApp.allow_remote_access = True
c.ServerApp.base_url = os.environ.get("INGRESS_PATH") or "/"
c.ServerApp.root_dir = os.environ.get("WORKSPACE") or "/kaapana"
c.LabApp.news_url = None
c.LabApp.extension_manager = "readonly"
c.KernelManager.transport = "ipc"
